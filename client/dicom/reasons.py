"""Reasons why a file, series, row or patient cannot be used, with what an admin can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Reason(Enum):
    """A reason code; the value says what it means and how to mend it."""

    EMPTY_FILE = "The file has no content; send it again from the PACS."
    UNREADABLE = "The file cannot be opened; let the daemon's user read it."
    NOT_DICOM = "Not a DICOM file; leave it out of the folder or export it as DICOM."
    DICOMDIR = "An index of a medium, not an image; it is not needed."
    NO_PIXELS = "The object holds no image (report, plan, waveform); it is not needed."
    SEGMENTATION = (
        "A segmentation that no row names; name it in the table of labels, or let `pull` find it "
        "(from: pacs)."
    )
    MISSING_HEADER = "A needed attribute is missing; export the study again."
    MISSING_TS = "The header names no transfer syntax and the pixels need one; export it again."
    UNEXPECTED = "The PACS sent an object that was not asked for; tell its admins."
    PARTIAL_WRITE = "The file is still growing; it is read when it has rested."
    BAD_VR = "An attribute holds what its type does not allow; export the study again."
    UNSUPPORTED_TS = "No decoder for this transfer syntax; export as Explicit VR Little Endian."
    TRUNCATED_PIXELS = "Pixel data end too early; send the file again."
    DECODE_ERROR = "The pixel data cannot be decoded; send the file again."
    TOO_LARGE = "Rows x columns x frames is beyond any image; check the header."
    FAILED = (
        "Preparing it failed as no rule foresees; tell Wardround's authors what the detail names."
    )
    NOT_FINITE = "The image has values that are not numbers; export it again."
    BLANK = "The image has one grey value only; check how it was exported."
    SATURATED = "Most of the image is at its highest value; check the exposure or the export."
    BURNED_IN_SUSPECT = "Text may stand in the picture; look at it before it is used."
    WRONG_BODYPART = "The run uses other parts of the body (cohort.images.body_parts)."
    WRONG_LATERALITY = "Image and table name different sides; correct the one that is wrong."
    SPACING_OUTLIER = "Pixels or slices are of another size than nearly all others here; check it."
    PIXEL_SHAPE = "The header gives pixels several shapes (height over width); correct it."
    DERIVED = "A secondary capture or derived image, not an acquisition; see that it belongs here."
    LOCALIZER = "A localizer (scout) image; it is not needed."
    MOSAIC = (
        "Many slices side by side in one picture (mosaic), which no PACS takes apart; have the "
        "scanner send enhanced MR, or convert it (dcm2niix) and name the NIfTI in the table "
        "(format: files)."
    )
    SLIDE_LABEL = "A slide's label, overview or thumbnail, which may show a name; never decoded."
    NO_SUV = "SUVbw cannot be computed of the PET's header; the detail names what it lacks."
    SEVERAL_MAGNIFICATIONS = (
        "The study's slides are there at several magnifications; give the files of one."
    )
    NO_MAGNIFICATION = "The slide does not say how large its pixels are, or all are too large."
    NO_TISSUE = "No part of the slide is tissue enough; see cohort.images.slide.tissue."
    WRONG_PRESENTATION = "Raw or processed: not what the run uses (cohort.images.presentation)."
    WRONG_UNITS = "PET values in other Units (0054,1001) than the run uses (cohort.images.units)."
    AMBIGUOUS_SERIES = (
        "Several kinds of pictures fit where one is meant; name one in SeriesInstanceUID, or let "
        "the run's rules say which (cohort.images.series)."
    )
    OTHER_SERIES = "The run takes other series (cohort.images.series)."
    MISSING_SERIES = (
        "A series that the run needs is not in the study (cohort.images.series); send it, or give "
        "its own words in series_aliases."
    )
    NO_COMMON_FRAME = (
        "Series of one study do not share a FrameOfReferenceUID, so nobody knows how they lie to "
        "each other (cohort.images.register)."
    )
    MISALIGNED = "Series of one study do not lie on each other as their headers say; look at it."
    SHOWN_IN_PART = (
        "A series shows less than half of the grid of its study's reference; look whether all of "
        "it was sent."
    )
    WRONG_MODALITY = "The run uses other modalities (cohort.images.modalities)."
    DUP_SOP_SAME = "The same image is there twice; one is used."
    DUP_SOP_DIFFERENT = "Two files with one SOP Instance UID differ; keep the right one."
    INCOMPLETE_SERIES = "Some slices of the series cannot be read; send the series again."
    MISSING_SLICES = "Slices are missing between the first and the last; send the series again."
    NONUNIFORM_SPACING = "Distances between slices differ; the run needs an even series."
    DUP_POSITION = "Two slices lie at one position; split the series by what they differ in."
    MULTI_PHASE = "Every position has several slices; split the series, or say cohort.images.time."
    MULTI_PHASE_UNEVEN = "Places have different numbers of pictures; send again what is missing."
    TOO_FEW_PHASES = "Fewer pictures of each place than the run uses (cohort.images.time.frames)."
    PHASE_ORDER_UNKNOWN = (
        "No header orders the pictures of each place (cohort.images.time.by), or they vary in two "
        "ways: take one kind by cohort.images.series."
    )
    MIXED_ORIENTATION = "Slices of different orientation in one series; take the localizer out."
    MIXED_MATRIX = "Slices of different size or pixel spacing in one series; split the series."
    MIXED_SERIES = "Slices of several studies, modalities or frames of reference; split the series."
    NO_GEOMETRY = "No position, orientation or pixel spacing, so no volume can be built."
    TOO_FEW_SLICES = "A volume needs at least two slices; a 2-D run can use this image."
    LABEL_MISSING = "No row of the table of labels for this image; add one or remove the image."
    LABEL_CONFLICT = "Rows of the table of labels disagree about this patient; correct them."
    LABEL_AFTER_OUTCOME = "A value was taken after the outcome it would predict; leave it out."
    PATIENT_TWO_IDS = "One image stands under two PatientIDs; merge them or remove one."
    PATIENT_TWO_ISSUERS = "One PatientID of two issuers is two people; give one another PatientID."
    PATIENT_CONFLICT = "Birth dates or sexes of one PatientID differ; correct them or part the two."
    TOO_FEW_PATIENTS = "Fewer patients than the run needs (cohort.smallest_cohort)."
    WITHDRAWN = "The patient was withdrawn here; nothing of them is used."
    LABEL_UNUSABLE = "The row's outcome cannot be used; see the detail."
    LABEL_CLIPPED = "The outcome lies beyond the run's range (task.range) and counts as its end."
    PATIENT_MISMATCH = "The row's PatientID is not the one in its images; correct the row."
    VALUE_UNUSABLE = "A clinical value is not as declared; it counts as missing."
    ROW_MALFORMED = "The line cannot be read as a row of the header's columns; see the detail."
    NO_IMAGE = "No usable image for this row; send the study as DICOM or remove the row."
    FILE_UNKNOWN = "Not a kind of file that an image is read from here; see the detail."
    FILE_OUTSIDE = "The path leaves the site's folder or is no plain file; correct the table."
    PICTURE_UNCLEAR = "Programs read such a picture in different ways; the detail says which."
    NO_KEY = "The row names no patient, study or series; fill PatientID."
    MASK_MISSING = "The row names no mask, or the mask's file is not there."
    MASK_UNUSABLE = "The mask cannot be read or does not fit its image; see the detail."
    MASK_GREYS = "A few grey values of the mask are of no structure; they count as background."
    MASK_RIM = "A thin rim of a structure between two others, as smoothing makes it; look at it."
    MASK_PALETTE = "The mask is a picture with a palette; the detail says how it was read."
    MASK_INVERTED = "The mask is drawn along all of its picture's border; is it black on white?"
    MASK_LOST = (
        "A drawn structure has no voxel on the run's grid; a larger size, letterbox or a finer "
        "spacing would keep it."
    )
    MASK_CUT = "A part of what is drawn is not on the run's grid; see the detail."
    MASK_COVERED = "A structure lies wholly under one named later (structures); is the order right?"
    MASK_EMPTY = "Nothing of the structure is drawn: its volume is 0, and it has no shape."
    MASK_AT_BORDER = (
        "A structure reaches the image's border: only what the image shows is measured."
    )
    COARSE_SLICES = (
        "Slices lie far apart beside the pixels: surface, diameters and axes along them are rough."
    )
    NOT_SCORED = "The model cannot score the study; see the detail."
    TRAINED_ON = "The model was trained on this patient here: its outline is better than on others."
    PHASE_MISSING = "Not both phases have a mask of their own, so there is no ejection fraction."
    PHASES_SWAPPED = (
        "The end-systolic volume is the larger one; are the columns of the masks swapped?"
    )
    MASK_NAMES = "Structures and what the mask holds differ in names or numbers; see the detail."
    PATIENT_IN_TWO_SPLITS = "The patient is in two splits; every patient belongs in one."
    SPLIT_UNKNOWN = "The split column says neither train, validation nor test."


#: Reasons that leave nothing out: what they name is used, and worth a look.
NOTICES = frozenset(
    {
        Reason.LABEL_CLIPPED,
        Reason.MASK_GREYS,
        Reason.MASK_RIM,
        Reason.MASK_PALETTE,
        Reason.MASK_INVERTED,
        Reason.MASK_CUT,
        Reason.MASK_COVERED,
        Reason.MASK_EMPTY,
        Reason.MASK_AT_BORDER,
        Reason.COARSE_SLICES,
        Reason.TRAINED_ON,
        Reason.MASK_NAMES,
        Reason.MISALIGNED,
        Reason.SHOWN_IN_PART,
    }
)


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """One thing that is left out; stays at the site, for its admin."""

    reason: Reason
    what: str  # file, series, row or patient
    detail: str = ""
    patient: str = field(default="", compare=False)  # whose it is; empty where nothing says


class UnusableFile(Exception):
    """A file, series or mask that is left out; caught where such things are listed."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.detail = detail

    def listed(self, what: str, patient: str = "") -> Unusable:
        """Return the entry of the list."""
        return Unusable(reason=self.reason, what=what, detail=self.detail, patient=patient)


class DecoderGaveUp(UnusableFile):
    """A decoder failed on a codestream that looked right; another decoder may not."""
