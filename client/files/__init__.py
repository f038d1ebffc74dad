"""Files that are not DICOM.

Imported from here: other_formats.
May import: nothing.
"""
