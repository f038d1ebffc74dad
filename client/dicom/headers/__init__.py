"""Fast reading of many headers: scanned from the first bytes, or parsed by pydicom.

Imported from here: checks, elements, growing_files, header, instance, parsed, scanned.
May import: client.dicom, client.dicom.codec, client.dicom.reading.
"""
