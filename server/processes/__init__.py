"""Processes that the service starts: a run, and the asking before one.

Imported from here: nothing.
May import: server.aggregation, server.enrolment, server.files, server.planning, server.rounds,
    server.transport, common.
"""
