"""De-identification of DICOM objects that leave the hospital (PS3.15 annex E).

Imported from here: deidentify.
May import: client.dicom, client.dicom.codec, client.dicom.reading, client.site.
"""
