"""Which sites belong: invited, compared, accepted, revoked; certificates and receipts.

Imported from here: certificates, initialise, invitations, pages, receipts, registry.
May import: server.files, server.http, common.
"""
