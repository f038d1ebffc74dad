"""Why a file, series, row or patient cannot be used, and what a site admin can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """A reason code; the value says how to mend it."""

    EMPTY_FILE = "The file has no content; send it again from the PACS."
    NOT_DICOM = "Not a DICOM file; leave it out of the folder or export it as DICOM."
    DICOMDIR = "An index of a medium, not an image; it is not needed."
    NO_PIXELS = "The object holds no image (report, structure set, waveform); it is not needed."
    SEGMENTATION = "A segmentation; it is used as a mask where labels.csv names it."
    MISSING_HEADER = "A needed attribute is missing; export the study again."
    UNSUPPORTED_SYNTAX = "No decoder for this transfer syntax; export as Explicit VR Little Endian."
    TRUNCATED_PIXELS = "Pixel data end too early; send the file again."
    DECODE_ERROR = "The pixel data cannot be decoded; send the file again."
    TOO_LARGE = "Rows x columns x frames is beyond any image; check the header."
    WRONG_MODALITY = "The run uses other modalities (cohort.images.modalities)."
    DUPLICATE_SOP = "The same SOP Instance UID again; the first file is used."
    MISSING_SLICES = "Slices are missing between the first and the last; send the series again."
    DUPLICATE_POSITION = "Two slices at one position; split the series by phase or echo."
    MIXED_ORIENTATION = "Slices of different orientation (a localizer?) in one series."
    MIXED_MATRIX = "Slices of different size in one series."
    NO_GEOMETRY = "No position or orientation, so no volume can be built."
    TOO_FEW_SLICES = "A volume needs at least two slices."
    LABEL_MISSING = "No row of labels.csv for this image; add one or remove the image."
    LABEL_CONFLICT = "Rows of labels.csv disagree about this patient; correct them."
    LABEL_UNUSABLE = "The row's outcome cannot be used; see the detail."
    VALUE_UNUSABLE = "A clinical value is not a number; it counts as missing."
    NO_IMAGE = "No usable image for this row; send the study or remove the row."
    NO_KEY = "The row names no patient; fill PatientID."
    MASK_MISSING = "The mask's file is not there."
    MASK_UNUSABLE = "The mask cannot be read or does not fit its image."
    TWO_SPLITS = "The patient is in two splits; every patient belongs in one."
    BLANK = "The image has one grey value only."


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """One thing that is left out; stays at the site, for its admin."""

    reason: Reason
    what: str  # file, series, row or patient
    detail: str = ""
