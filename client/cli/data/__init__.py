"""Commands of `wardround-site` for images and tables: pull, index, outcomes, deidentify.

Imported from here: deidentify, index, measure, outcomes, pull.
May import: client.cohort, client.dicom, client.dicom.deidentify, client.dicom.headers,
    client.dicom.index, client.dicom.pixels, client.files, client.governance, client.inference,
    client.inference.calibration, client.labels, client.measurement, client.outcomes, client.pacs,
    client.pacs.sending, client.readiness, client.results, client.site, client.training, common.
"""
