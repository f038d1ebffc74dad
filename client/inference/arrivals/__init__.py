"""Queue of studies that arrive to be scored; it outlives a crash.

Imported from here: intake, purge, queue, score_and_send, worklist.
May import: client.cohort, client.dicom, client.inference, client.pacs, client.pacs.receivers,
    client.results, client.site, common.
"""
