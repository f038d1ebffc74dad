"""Export of a run's model as a bundle.

Imported from here: export.
May import: server.files, server.planning, server.rounds, common.
"""
