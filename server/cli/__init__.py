"""Commands of `wardround-coordinator`, one module each; `app` gives their names and options.

Imported from here: nothing.
May import: server.bundle, server.cli.upkeep, server.enrolment, server.files, server.planning,
    server.rounds, server.service, common.
"""
