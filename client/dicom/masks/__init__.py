"""Masks that people drew (SEG, RTSTRUCT, PNG, NIfTI), put onto the grid of their image.

Imported from here: grid, kept_mask, mask_remarks, nifti, nifti_file, owner, png, rtstruct, seg,
    seg_segments.
May import: client.dicom, client.dicom.codec, client.dicom.reading, common.
"""
