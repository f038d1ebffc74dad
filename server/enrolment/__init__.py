"""Enrolment of sites: invited, compared, accepted, revoked; certificates and receipts.

Imported from here: certificates, enrolment_pages, initialise, moving, receipts, registry.
May import: server.files, server.http, common.
"""
