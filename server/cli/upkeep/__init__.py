"""Commands that look after a coordinator's folder over years: move, backup, restore.

Imported from here: backup, move.
May import: server.enrolment, server.files, common.
"""
