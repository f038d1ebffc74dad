"""Commands of `wardround-site` for images and tables: pull, index, outcomes, deidentify.

Imported from here: deidentify, index, outcomes, pull.
May import: client.cohort, client.dicom.deidentify, client.dicom.headers, client.dicom.index,
    client.dicom.pixels, client.files, client.governance, client.labels, client.outcomes,
    client.pacs, client.site, client.training, common.
"""
