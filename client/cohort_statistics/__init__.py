"""What a site tells of its cohort before a run, as counts, and what that costs its patients.

Imported from here: account, brightness, description, released_counts, run_costs.
May import: client.cohort, client.dicom, client.dicom.headers, client.dicom.index,
    client.dicom.pixels, client.privacy, client.site, client.training, common.
"""
