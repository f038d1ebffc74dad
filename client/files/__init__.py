"""Files that are not DICOM: read as images where a table names them, else told to people.

Imported from here: below, image_file, other_formats.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.masks,
    client.dicom.reading.
"""
