"""Compressed or native pixel data to arrays, with every length checked before it is believed.

Imported from here: compressed, dcmtk, decode.
May import: client.dicom.
"""
