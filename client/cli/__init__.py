"""`wardround-site`: one module a command; `app` says what each is called and takes.

Imported from here: nothing.
May import: client.cohort, client.cohort_statistics, client.dicom, client.dicom.deidentify,
    client.dicom.index, client.dicom.pixels, client.governance, client.inference,
    client.inference.arrivals, client.inference.calibration, client.labels, client.node,
    client.outcomes, client.pacs, client.pacs.sending, client.privacy, client.readiness,
    client.results, client.site, client.training, client.transport, client.withdrawal, common.
"""
