"""An image's pixels by its row in the index: read the fast way, and stored once read.

Imported from here: burned_in_text, native, pixel_store.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.reading,
    client.site, common.
"""
