"""Receivers of results beside the PACS: FHIR servers, and HL7 v2 by MLLP.

Imported from here: deliver_everywhere.
May import: client.outcomes, client.pacs.sending, client.results, client.site, common.
"""
