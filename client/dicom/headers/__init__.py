"""Headers by the thousand: scanned from the first bytes, or parsed where that is not enough.

Imported from here: checks, elements, growing_files, header, instance, parsed, scanned.
May import: client.dicom, client.dicom.codec, client.dicom.reading.
"""
