"""De-identification of DICOM objects that leave the hospital (PS3.15 annex E).

Imported from here: blanked_text, defaced_series, deidentify, pixel_data.
May import: client.dicom, client.dicom.codec, client.dicom.pixels, client.dicom.reading,
    client.site.
"""
