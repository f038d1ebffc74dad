"""The service of `start`: listeners, the operator's API, and the supervision of runs.

Imported from here: advice, operator_client, run_book, serve, systemd.
May import: server.enrolment, server.files, server.http, server.rounds, server.service.calls,
    common.
"""
