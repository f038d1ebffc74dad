"""Images from where they are kept: DICOMweb, C-GET, C-MOVE or a folder, behind one interface.

Imported from here: arrival_batch, fsync, pull, query, queue, rate_limit, received_file, receiver,
    selection, source.
May import: client.dicom, client.dicom.headers, client.dicom.reading, client.labels,
    client.pacs.connection, client.site, common.
"""
