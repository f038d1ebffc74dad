"""Images from the PACS by DICOMweb, C-GET, C-MOVE or a folder, behind one interface.

Imported from here: arrival_batch, cfind, fsync, image_source, mask_links, pull, pull_queue,
    pull_selection, rate_limit, received_file, storage_scp, workitems.
May import: client.dicom, client.dicom.headers, client.dicom.masks, client.dicom.reading,
    client.labels, client.pacs.connection, client.results, client.site, common.
"""
