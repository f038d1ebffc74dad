"""Outlines that people drew (SEG, RTSTRUCT, PNG, NIfTI), on the grid of their image.

Imported from here: masks, nifti, owner, rtstruct.
May import: client.dicom, client.dicom.codec, client.dicom.reading.
"""
