"""DICOM reading: reasons and remarks here, and a room for each step.

Imported from here: contained, quiet, reasons, remarks.
May import: common.
"""
