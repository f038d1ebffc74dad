"""Commands of `wardround-site`, one module each; `app` gives their names and options.

Imported from here: nothing.
May import: client.cli.data, client.cli.membership, client.cli.models, client.cohort_statistics,
    client.dicom.deidentify, client.governance, client.node, client.privacy, client.readiness,
    client.site, client.transport, client.withdrawal, common.
"""
