"""Measurement of a site's patients: structures that were outlined, as tables and reports.

Imported from here: measured_page, measured_table, plan, predicted_outlines, site_measurements.
May import: client.cohort, client.dicom, client.dicom.headers, client.dicom.index,
    client.dicom.masks, client.dicom.pixels, client.dicom.reading, client.inference,
    client.inference.calibration, client.labels, client.radiomics, client.results, client.series,
    client.site, common.
"""
