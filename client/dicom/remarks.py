"""Remarks on what is accepted and still worth knowing; counted in the report."""

from __future__ import annotations

from enum import Enum


class Remark(Enum):
    """A remark's code; the value says what was done about it."""

    NO_PREAMBLE = "The file lacks DICOM's preamble; it was read all the same."
    NO_SYNTAX = "The header names no transfer syntax; the one that its bytes follow was taken."
    BIG_ENDIAN = "Explicit VR Big Endian, which DICOM has retired; it was read."
    LOSSY = "The pixels were compressed with loss (0028,2110); fine detail may be gone."
    MONOCHROME1 = "Large values are dark (MONOCHROME1); they were turned."
    MODALITY_LUT = "Values become quantities by a table (Modality LUT); it was applied."
    PALETTE = "Colours come from a palette; it was applied."
    COLOUR = "The image has colours; a run with one channel takes their brightness."
    ENHANCED_MULTIFRAME = "One object holds many frames, each with its own place and rescale."
    MULTIFRAME = "One object holds many frames without a place of their own."
    LOCALIZER = "ImageType says localizer (scout); it is left out of volumes."
    BURNED_IN = "The header says that text stands in the picture (0028,0301)."
    TWO_SHAPES = (
        "Spacing, aspect ratio or ultrasound regions give pixels several shapes; one was taken."
    )
    RESCALE_VARIES = "Slices have rescales of their own; each was applied to its slice."
    GANTRY_TILT = "Slices are sheared (gantry tilt); the shear is kept in the volume's geometry."
