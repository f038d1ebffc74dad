"""The daemon and its worker: requests are taken, worked at and answered, for ever.

Imported from here: daemon, systemd.
May import: client.cohort, client.cohort_statistics, client.governance,
    client.inference.calibration, client.privacy, client.site, client.training, client.transport,
    common.
"""
