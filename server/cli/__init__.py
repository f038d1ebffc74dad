"""`wardround-coordinator`: one module a command; `app` says what each is called and takes.

Imported from here: nothing.
May import: server.bundle, server.enrolment, server.files, server.planning, server.rounds,
    server.service, common.
"""
