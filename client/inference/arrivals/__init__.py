"""Studies that arrive to be scored: a queue that outlives a crash.

Imported from here: listening, purge, queue, ways.
May import: client.cohort, client.dicom, client.inference, client.pacs, client.pacs.sending,
    client.results, client.site, common.
"""
