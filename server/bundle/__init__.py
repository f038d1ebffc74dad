"""The model of a run, exported.

Imported from here: export.
May import: server.files, server.planning, server.rounds, common.
"""
