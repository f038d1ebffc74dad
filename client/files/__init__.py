"""Files that are not DICOM.

Imported from here: below, image_file, other_formats.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.masks,
    client.dicom.reading, common.
"""
