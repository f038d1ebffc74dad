"""Measurement of a site's patients: structures that were outlined, as tables and reports.

Imported from here: forget_measured, measured_page, measured_table, plan, site_measurements.
May import: client.cohort, client.dicom, client.dicom.index, client.dicom.masks,
    client.dicom.pixels, client.dicom.reading, client.labels, client.radiomics, client.series,
    client.site, common.
"""
