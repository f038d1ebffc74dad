"""Whether a site is ready: what is in its folder, and whether machine, PACS and link are well.

Imported from here: doctor, gathering, purge, report.
May import: client.cohort, client.description, client.dicom, client.dicom.headers,
    client.dicom.index, client.dicom.pixels, client.dicom.reading, client.governance,
    client.inference.arrivals, client.labels, client.pacs, client.pacs.connection, client.privacy,
    client.site, client.training, client.transport, common.
"""
