"""Whole slides: levels of a pyramid, tiles of tissue at one magnification.

Imported from here: kept_tiles, openslide_levels, tiles.
May import: client.dicom, client.dicom.codec, client.dicom.headers, client.dicom.reading,
    client.site, common.
"""
