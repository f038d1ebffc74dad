"""Decoding of compressed or native pixel data to arrays; every length is checked first.

Imported from here: compressed, dcmtk, decode.
May import: client.dicom.
"""
