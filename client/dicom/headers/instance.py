"""What the index holds of an image, of a series, and of a file that is no usable image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.dicom.headers.checks import Scan, check_image
from client.dicom.headers.elements import Elements
from client.dicom.reading.files import File
from client.dicom.reading.frame_times import FrameFacts
from client.dicom.reading.presentation_intent import presentation_of, units_of
from client.dicom.reading.read import Cosines, Header, ImageKey, PixelShape, Position, is_localizer
from client.dicom.reading.technique import Technique
from client.dicom.reading.tracer import Tracer
from client.dicom.reasons import Reason, Unusable
from client.dicom.remarks import Remark


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One file that holds an image, as its header tells; texts are empty where it says nothing."""

    path: Path  # absolute
    size: int  # bytes
    mtime_ns: int  # time of last change, ns since 1970
    patient: str  # PatientID
    issuer: str  # who gave it (groups.issuer_of); another issuer's is another person
    patient_sex: str  # M, F, O
    birth_date: str  # YYYYMMDD
    study: str  # StudyInstanceUID
    accession: str
    study_date: str  # YYYYMMDD
    study_description: str
    patient_age: str  # at the study, as stored: 045Y, 006M, 010D
    series: str  # SeriesInstanceUID
    modality: str
    body_part: str
    series_description: str
    manufacturer: str
    model: str
    instance: str  # SOPInstanceUID
    number: int  # InstanceNumber; 0 where there is none
    sop_class: str
    transfer_syntax: str
    image_type: str  # values joined by backslashes, as stored
    laterality: str  # ImageLaterality, else Laterality: R, L, U, B
    burned_in: str  # BurnedInAnnotation: YES, NO
    photometric: str
    rows: int
    columns: int
    frames: int
    samples: int  # per pixel: 1 or 3
    bits_allocated: int
    bits_stored: int
    slope: float | None  # of the whole object, None: not said; frames may have their own
    intercept: float | None
    spacing: tuple[float, float] | None  # row and column distance, mm
    slice_thickness: float | None  # mm
    positions: tuple[Position, ...]  # of each frame, mm; empty without geometry
    orientations: tuple[Cosines, ...]  # of each frame; empty without geometry
    frame_of_reference: str  # UID of what the positions are measured from
    units: str  # Units (0054,1001) of a PET
    presentation: str  # for_presentation, for_processing, or nothing
    remarks: frozenset[Remark]
    aspect: float = 1.0  # height of a pixel over its width, where spacing is None
    acquired: tuple[float | None, ...] = ()  # of read.ACQUIRED
    technique: Technique = field(default_factory=Technique)  # how it was made
    tracer: Tracer | None = None  # of a PET
    each: tuple[FrameFacts, ...] = ()  # of several frames, where they say something

    @property
    def key(self) -> ImageKey:
        """Return what the object is known by in its site's folder."""
        return self.patient, self.series, self.instance

    @property
    def described(self) -> str:
        """Return SeriesDescription and ProtocolName, in which rules look for words."""
        return f"{self.series_description} {self.technique.protocol}".strip()

    @property
    def header(self) -> Header:
        """Return what a cohort needs to know."""
        return Header(
            patient=self.patient,
            study=self.study,
            series=self.series,
            instance=self.instance,
            accession=self.accession,
            modality=self.modality,
            shape=(self.rows, self.columns),
            frames=self.frames,
            spacing=self.spacing,
            positions=self.positions,
            orientations=self.orientations,
            frame_of_reference=self.frame_of_reference,
            units=self.units,
            presentation=self.presentation,
            number=self.number,
            thickness=self.slice_thickness,
            rescaled=bool(self.slope),
            aspect=self.aspect,
            acquired=self.acquired,
            tracer=self.tracer,
            description=self.series_description,
            made=self.technique.made,
            image_type=self.image_type,
            each=self.each,
        )


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of one study, and how much of it is in the folder."""

    patient: str
    patient_sex: str
    birth_date: str  # YYYYMMDD
    study: str
    accession: str
    study_date: str  # YYYYMMDD
    study_description: str
    patient_age: str  # as stored
    series: str
    modality: str
    body_part: str
    series_description: str
    manufacturer: str
    model: str
    instances: int  # usable files
    frames: int  # of all of them


@dataclass(frozen=True, kw_only=True)
class Quarantined(Unusable):
    """A file that is no usable image; `what` is its path."""

    study: str = ""
    series: str = ""
    description: str = ""  # SeriesDescription and ProtocolName, where the header could be read


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much an index holds."""

    patients: int
    studies: int
    series: int
    instances: int
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an update found in a folder."""

    files: int  # in the folder now
    read: int  # new or changed, so read
    gone: int  # known, and not there any more
    #: Of all files that were read now, those that are no usable image.
    quarantined: Sequence[Quarantined]


def without(
    found: Sequence[Instance | Quarantined], patients: frozenset[str]
) -> list[Instance | Quarantined]:
    """Return what was found, with nothing but the paths of these patients' files."""
    return [
        Quarantined(
            reason=Reason.WITHDRAWN, what=str(one.path) if isinstance(one, Instance) else one.what
        )
        if one.patient in patients
        else one
        for one in found
    ]


def describe(file: File, found: Scan) -> Instance:
    """Return the image that a header tells of; UnusableFile says why it is none."""
    elements = found.elements
    check_image(found, file.size)
    frames = elements.integer("NumberOfFrames") or 1
    positions, orientations = elements.geometry(frames)
    thickness = elements.numbers("SliceThickness", 1)
    shape = elements.shape()
    slope = elements.numbers("RescaleSlope", 1)
    sop_class = elements.text("SOPClassUID") or found.media_class
    intercept = elements.numbers("RescaleIntercept", 1)
    return Instance(
        path=file.path,
        size=file.size,
        mtime_ns=file.mtime_ns,
        patient=elements.text("PatientID"),
        issuer=elements.issuer(),
        patient_sex=elements.text("PatientSex"),
        birth_date=elements.text("PatientBirthDate"),
        study=elements.text("StudyInstanceUID"),
        accession=elements.text("AccessionNumber"),
        study_date=elements.text("StudyDate"),
        study_description=elements.text("StudyDescription"),
        patient_age=elements.text("PatientAge"),
        series=elements.text("SeriesInstanceUID"),
        modality=elements.text("Modality"),
        body_part=elements.text("BodyPartExamined"),
        series_description=elements.text("SeriesDescription"),
        manufacturer=elements.text("Manufacturer"),
        model=elements.text("ManufacturerModelName"),
        instance=elements.text("SOPInstanceUID"),
        number=elements.integer("InstanceNumber"),
        sop_class=sop_class,
        transfer_syntax=found.syntax,
        image_type=elements.joined("ImageType"),
        laterality=elements.text("ImageLaterality") or elements.text("Laterality"),
        burned_in=elements.text("BurnedInAnnotation"),
        photometric=elements.text("PhotometricInterpretation"),
        rows=elements.integer("Rows"),
        columns=elements.integer("Columns"),
        frames=frames,
        samples=elements.integer("SamplesPerPixel"),
        bits_allocated=elements.integer("BitsAllocated"),
        bits_stored=elements.integer("BitsStored"),
        slope=slope[0] if slope else None,
        intercept=intercept[0] if intercept else None,
        spacing=shape.spacing,
        slice_thickness=thickness[0] if thickness else None,
        positions=positions,
        orientations=orientations,
        frame_of_reference=elements.text("FrameOfReferenceUID"),
        units=units_of(elements.text("Units"), elements.text("SUVType")),
        presentation=presentation_of(elements.text("PresentationIntentType"), sop_class),
        aspect=shape.aspect,
        acquired=elements.acquired(),
        technique=elements.technique(),
        tracer=elements.tracer(),
        each=elements.each(frames),
        remarks=found.remarks | _remarks(elements, frames, shape, enhanced=len(positions) > 1),
    )


def _remarks(
    elements: Elements, frames: int, shape: PixelShape, *, enhanced: bool
) -> frozenset[Remark]:
    """Return what is worth knowing of an image."""
    photometric = elements.text("PhotometricInterpretation")
    seen = {
        Remark.MONOCHROME1: photometric == "MONOCHROME1",
        Remark.PALETTE: photometric == "PALETTE COLOR",
        Remark.COLOUR: not photometric.startswith("MONOCHROME"),
        Remark.MODALITY_LUT: elements.holds("ModalityLUTSequence"),
        Remark.LOSSY: elements.text("LossyImageCompression") == "01",
        Remark.ENHANCED_MULTIFRAME: enhanced,
        Remark.MULTIFRAME: frames > 1 and not enhanced,
        Remark.LOCALIZER: is_localizer(elements.joined("ImageType")),
        Remark.BURNED_IN: elements.text("BurnedInAnnotation") == "YES",
        Remark.TWO_SHAPES: shape.contradicted,
    }
    return frozenset(remark for remark, true in seen.items() if true)
