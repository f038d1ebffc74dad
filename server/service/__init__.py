"""What `start` runs: listeners, the operator's API, the runs and their watch.

Imported from here: advice, operator_client, serve, systemd.
May import: server.enrolment, server.files, server.http, server.rounds, common.
"""
