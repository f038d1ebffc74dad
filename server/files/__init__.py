"""Where the coordinator keeps what: settings, a run's folder and its status.

Imported from here: board, folder, run_status, settings.
May import: server.http, common.
"""
