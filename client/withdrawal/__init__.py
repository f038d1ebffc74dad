"""Withdrawal of a patient: everything that a site keeps of one is removed.

Imported from here: purge.
May import: client.cohort, client.dicom, client.dicom.headers, client.dicom.index,
    client.dicom.pixels, client.dicom.reading, client.inference.arrivals, client.labels,
    client.pacs, client.site, common.
"""
