"""Pixels of an indexed image: read fast where possible, and stored once read.

Imported from here: burned_in_text, native, pixel_store.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.reading,
    client.site, common.
"""
