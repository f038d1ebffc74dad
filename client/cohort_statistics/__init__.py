"""Statistics of a site's cohort before a run, as counts, and their cost for its patients.

Imported from here: account, brightness, description, released_counts, run_costs.
May import: client.cohort, client.dicom, client.dicom.headers, client.dicom.index,
    client.dicom.pixels, client.dicom.reading, client.privacy, client.site, client.training, common.
"""
