"""Outlines that people drew (SEG, RTSTRUCT, PNG, NIfTI), on the grid of their image.

Imported from here: grid, masks, nifti, owner, rtstruct, segments, telling.
May import: client.dicom, client.dicom.codec, client.dicom.reading, common.
"""
