"""The daemon and its worker: they take, work at and answer requests.

Imported from here: daemon, systemd.
May import: client.cohort, client.cohort_statistics, client.governance,
    client.inference.calibration, client.privacy, client.series, client.site, client.training,
    client.transport, common.
"""
