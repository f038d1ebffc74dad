"""Sending of results to the PACS: stored, read back and compared.

Imported from here: delivery.
May import: client.dicom, client.dicom.index, client.pacs.connection, client.results, client.site,
    common.
"""
