"""Files of the coordinator: settings, a run's folder and its status.

Imported from here: backup, coordinator_yaml, folder, status_reader, status_writer.
May import: server.http, common.
"""
