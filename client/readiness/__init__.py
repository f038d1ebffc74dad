"""Readiness of a site: its folder, machine, PACS and link.

Imported from here: doctor, gathering, pictures, report.
May import: client.cohort, client.cohort_statistics, client.dicom, client.dicom.headers,
    client.dicom.index, client.dicom.pixels, client.dicom.reading, client.files, client.governance,
    client.labels, client.pacs, client.pacs.connection, client.privacy, client.site,
    client.training, client.transport, common.
"""
