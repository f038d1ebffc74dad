"""DICOM as it is found: reasons and remarks here, and a room for each step of reading it.

Imported from here: contained, quiet, reasons, remarks.
May import: common.
"""
