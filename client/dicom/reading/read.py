"""Reading of DICOM files to headers and pixels; every change of a value is a step of its own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

from client.dicom.codec.decode import LARGEST_BYTES, decode, frames_of
from client.dicom.quiet import quiet
from client.dicom.reading.frame_times import FrameFacts, facts_of_frames
from client.dicom.reading.groups import as_integer, group_item, number_of, region_shapes, text_of
from client.dicom.reading.never_decoded import check_pictured
from client.dicom.reading.parse import BoundedFile, parse_file
from client.dicom.reading.presentation_intent import presentation_of, units_of
from client.dicom.reading.rescale import Pixels, as_quantities
from client.dicom.reading.technique import made_at
from client.dicom.reading.tracer import Tracer, tracer_of
from client.dicom.reasons import DecoderGaveUp, Reason, UnusableFile

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: What tells a pixel's shape, what counts before the others first: its size in the patient and
#: at the detector, of a scanned film (PS3.3 C.8.6.1), where none is known its ratio (C.7.6.3.1.7).
SHAPES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
#: Of the frames of a nuclear image (PS3.3 C.8.4.8): how many kinds of them there are.
COUNTED = ("NumberOfEnergyWindows", "NumberOfPhases", "NumberOfRRIntervals", "NumberOfTimeSlots")
#: What tells slices of one place apart: echo, phase, weighting, time; and where they lie at least.
ACQUIRED = (
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "AcquisitionNumber",
    "FrameReferenceTime",
    "KVP",
    "SliceLocation",
    *COUNTED,
)
#: Ratios that differ by less than this part are the same, rounded.
_SAME_RATIO = 0.01
_NEEDED = ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation")
#: Segmentation Storage and Label Map Segmentation Storage.
SEGMENTATIONS = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})

Position = tuple[float, float, float]
Cosines = tuple[float, float, float, float, float, float]


#: patient, series, instance: what an object is known by in its site's folder.
ImageKey = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class PixelShape:
    """What a header tells of a pixel's size and shape."""

    spacing: tuple[float, float] | None  # row and column distance in mm
    aspect: float  # height of a pixel over its width, where spacing is None
    contradicted: bool  # the header gives several shapes; the first that counts is taken


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a cohort needs to know of an object besides its pixels."""

    patient: str
    study: str
    series: str
    instance: str
    accession: str
    modality: str
    shape: tuple[int, int]  # rows, columns
    frames: int
    spacing: tuple[float, float] | None  # row and column distance in mm
    positions: tuple[Position, ...]  # of each frame, mm; empty without geometry
    orientations: tuple[Cosines, ...]  # of each frame; empty without geometry
    frame_of_reference: str = ""  # UID of what the positions are measured from
    number: int = 0  # InstanceNumber; 0 where there is none
    thickness: float | None = None  # of a slice, mm
    units: str = ""  # Units (0054,1001) of a PET
    presentation: str = ""  # for_presentation, for_processing, or nothing
    rescaled: bool = True  # whether the object itself has a RescaleSlope
    aspect: float = 1.0  # height of a pixel over its width, where spacing is None
    acquired: tuple[float | None, ...] = ()  # of ACQUIRED; None where it is not said
    tracer: Tracer | None = None  # of a PET
    description: str = ""  # SeriesDescription
    made: str = ""  # date and time of acquisition, else of the series: YYYYMMDDHHMMSS
    image_type: str = ""  # values joined by backslashes
    each: tuple[FrameFacts, ...] = ()  # of several frames, where they say something

    @property
    def key(self) -> ImageKey:
        """Return what the object is known by in its site's folder."""
        return self.patient, self.series, self.instance

    @property
    def pixel(self) -> tuple[float, float] | None:
        """Height and width of a pixel, in mm or in relation to each other; None: not said."""
        if self.spacing is not None:
            return self.spacing
        return None if self.aspect == 1 else (self.aspect, 1.0)


def is_localizer(image_type: str) -> bool:
    """Return whether ImageType, joined by backslashes, says localizer (PS3.3 C.8.2.1)."""
    return "LOCALIZER" in image_type.upper().split("\\")[2:]


def read_dataset(path: Path) -> Dataset:
    """Parse one file, pixels and all; UnusableFile says why not."""
    if path.stat().st_size == 0:
        raise UnusableFile(Reason.EMPTY_FILE)
    with BoundedFile(path) as file:
        return parse_file(file, path, pixels=True)


def read_header(dataset: Dataset) -> Header:
    """Return what identifies and places an image; UnusableFile for anything else."""
    try:
        with quiet():
            _check_image(dataset)
            return _header(dataset)
    except UnusableFile:
        raise
    except Exception as error:
        # pydicom converts values when they are asked for, and each type raises its own kind.
        raise UnusableFile(Reason.BAD_VR, str(error)[:120]) from error


def _check_image(dataset: Dataset) -> None:
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if sop_class == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in dataset:
        raise UnusableFile(Reason.DICOMDIR)
    if sop_class in SEGMENTATIONS:
        raise UnusableFile(Reason.SEGMENTATION)
    if not any(name in dataset for name in _PIXELS):
        raise UnusableFile(Reason.NO_PIXELS)
    check_pictured(dataset)
    for name in _NEEDED:
        if not dataset.get(name):
            raise UnusableFile(Reason.MISSING_HEADER, name)
    size = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    if size * frames_of(dataset) * max(int(dataset.BitsAllocated), 8) // 8 > LARGEST_BYTES:
        shape = f"{frames_of(dataset)} x {dataset.Rows} x {dataset.Columns}"
        raise UnusableFile(Reason.TOO_LARGE, shape)


def _header(dataset: Dataset) -> Header:
    frames = frames_of(dataset)
    positions, orientations = geometry_of(dataset, frames)
    shape = shape_of(dataset)
    return Header(
        patient=text_of(dataset, "PatientID"),
        study=text_of(dataset, "StudyInstanceUID"),
        series=text_of(dataset, "SeriesInstanceUID"),
        instance=text_of(dataset, "SOPInstanceUID"),
        accession=text_of(dataset, "AccessionNumber"),
        modality=text_of(dataset, "Modality"),
        shape=(int(dataset.Rows), int(dataset.Columns)),
        frames=frames,
        spacing=shape.spacing,
        positions=positions,
        orientations=orientations,
        rescaled=bool(dataset.get("RescaleSlope")),
        frame_of_reference=text_of(dataset, "FrameOfReferenceUID"),
        units=units_of(text_of(dataset, "Units"), text_of(dataset, "SUVType")),
        presentation=presentation_of(
            text_of(dataset, "PresentationIntentType"), text_of(dataset, "SOPClassUID")
        ),
        number=as_integer(int(dataset.get("InstanceNumber") or 0)),
        thickness=_thickness(dataset),
        aspect=shape.aspect,
        acquired=acquired_of(dataset),
        tracer=tracer_of(dataset),
        description=text_of(dataset, "SeriesDescription"),
        made=made_at(
            *(
                (text_of(dataset, f"{name}Date"), text_of(dataset, f"{name}Time"))
                for name in ("Acquisition", "Series")
            )
        ),
        image_type=text_of(dataset, "ImageType"),
        each=facts_of_frames(dataset, frames),
    )


def _thickness(dataset: Dataset) -> float | None:
    return found if np.isfinite(found := number_of(dataset, "SliceThickness", np.nan)) else None


def geometry_of(dataset: Dataset, frames: int) -> tuple[tuple[Position, ...], tuple[Cosines, ...]]:
    """Return position and orientation of each frame, all or none.

    Frames have places of their own in the functional groups of an enhanced object (PS3.3
    C.7.6.16). The frames of an object without groups have no place, unless there is only one.
    """
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if own and frames and len(own) != frames:
        detail = f"functional groups of {len(own)} frames, NumberOfFrames {frames}"
        raise UnusableFile(Reason.BAD_VR, detail)
    positions: list[Position] = []
    orientations: list[Cosines] = []
    for frame in range(frames if own or frames == 1 else 0):
        place = group_item(dataset, frame, "PlanePositionSequence") or dataset
        turn = group_item(dataset, frame, "PlaneOrientationSequence") or dataset
        where = _numbers(place, "ImagePositionPatient", 3)
        cosines = _numbers(turn, "ImageOrientationPatient", 6)
        if where and cosines:
            positions.append((where[0], where[1], where[2]))
            orientations.append(
                (cosines[0], cosines[1], cosines[2], cosines[3], cosines[4], cosines[5])
            )
    whole = len(positions) == frames
    return (tuple(positions), tuple(orientations)) if whole else ((), ())


def _spacing_of(dataset: Dataset) -> tuple[float, float] | None:
    """Return the distance of rows and of columns in mm; None where frames differ in it."""
    found = set()
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for frame in range(max(len(own), 1)):
        measures = group_item(dataset, frame, "PixelMeasuresSequence") or dataset
        one = _numbers(measures, "PixelSpacing", 2) or _numbers(dataset, "ImagerPixelSpacing", 2)
        found.add(tuple(one))
    (only, *more) = found
    return (only[0], only[1]) if only and not more else None


def shape_of(dataset: Dataset) -> PixelShape:
    """Return what a dataset tells of a pixel's size and shape."""
    said = [_pair(dataset, name) for name in SHAPES]
    return shape_from(_spacing_of(dataset), said, region_shapes(dataset))


def shape_from(
    spacing: tuple[float, float] | None, said: Sequence[Sequence[float]], regions: Sequence[float]
) -> PixelShape:
    """Return a pixel's shape from its spacing, the pairs of SHAPES and the ultrasound regions.

    Ultrasound is calibrated by region (PS3.3 C.8.5.5), for shape as for measuring; a spacing of
    another shape is no size of its pixels then. Elsewhere spacing counts: a Pixel Aspect Ratio
    shall not stand beside one (PS3.3 C.7.6.3, type 1C), and says nothing of its own there.
    """
    measured = _ratios([spacing] if spacing else [])
    known = [*regions, *measured, *_ratios(said)]
    if regions and measured and _differ(measured[0], regions[0]):
        spacing = None
    aspect = next(iter([*regions, *_ratios(said[2:])]), 1.0)
    contradicted = any(_differ(ratio, known[0]) for ratio in known)
    return PixelShape(spacing=spacing, aspect=aspect, contradicted=contradicted)


def _ratios(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Return first over second of each pair that says something."""
    return [pair[0] / pair[1] for pair in pairs if len(pair) == 2 and min(pair) > 0]


def _differ(one: float, other: float) -> bool:
    return abs(one / other - 1) > _SAME_RATIO


def acquired_of(dataset: Dataset) -> tuple[float | None, ...]:
    """Return the values of ACQUIRED; what is no single number is not said."""
    return tuple(single(dataset, name) for name in ACQUIRED)


def single(dataset: Dataset, name: str) -> float | None:
    """Return one finite number; None where a value is none, or several."""
    try:
        found = number_of(dataset, name, np.nan)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def _pair(dataset: Dataset, name: str) -> list[float]:
    """Return two numbers, or none where a value is no pair of numbers."""
    try:
        return _numbers(dataset, name, 2)
    except (TypeError, ValueError):
        return []


def _numbers(dataset: Dataset, name: str, count: int) -> list[float]:
    """Return so many finite numbers, or none at all."""
    value = dataset.get(name)
    found = [] if value is None else [float(v) for v in value]
    return found if len(found) == count and np.isfinite(found).all() else []


def read_pixels(dataset: Dataset) -> Pixels:
    """Decode all frames; UnusableFile says why not."""
    try:
        with quiet():
            _check_image(dataset)
            syntax = _syntax(dataset)
            return as_quantities(
                dataset, decode(dataset, syntax), lambda: decode(_uncut(dataset), syntax)
            )
    except UnusableFile:
        raise
    except Exception as error:
        # Decoders of several libraries raise their own kinds on broken data.
        detail = f"{type(error).__name__}: {error}"[:120]
        raise DecoderGaveUp(Reason.DECODE_ERROR, detail) from error


def _uncut(dataset: Dataset) -> Dataset:
    """Return the dataset as one that stores all bits of its words."""
    found = copy(dataset)
    found.BitsStored, found.HighBit = dataset.BitsAllocated, int(dataset.BitsAllocated) - 1
    return found


def _syntax(dataset: Dataset) -> UID:
    """Return the transfer syntax; without one, the native syntax that the parser found."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax:
        return UID(syntax)
    implicit, little = dataset.original_encoding
    if dataset["PixelData"].is_undefined_length:
        raise UnusableFile(Reason.MISSING_HEADER, "TransferSyntaxUID")
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return UID(dataset.file_meta.TransferSyntaxUID)
