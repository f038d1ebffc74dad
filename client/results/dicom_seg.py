"""DICOM SEG of a model's outlines (PS3.3 A.51), for volumes and single images.

highdicom writes neither outlines of several frames without a frame of reference (ultrasound
loops) nor outlines of a class that it does not know, so the object is put together here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from client.dicom.reading.groups import group_item
from client.results.codes import short, structure
from client.results.colours import cielab, colour
from client.results.equipment import (
    ReportedScore,
    algorithm,
    coded,
    decimal,
    new_instance,
    reference,
    stamp,
)
from client.results.identity import Kind
from client.results.score import Outlines
from client.results.source_images import SourceHeaders
from common.platform.errors import CohortError

_SEGMENTED = Code("113076", "DCM", "Segmentation")
_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """A frame of the SEG."""

    segment: int  # from 1
    position: int  # in Outlines.labels
    rank: int  # of its place among the places, from 1


def segmentation(finding: ReportedScore) -> Dataset | None:
    """Return the SEG; None where nothing is outlined, as a SEG needs a frame.

    Frames in which a structure is not are left out. Sources may come in any order: a frame
    lies where its own source lies.
    """
    outlines, source = finding.score.outlines, finding.source
    if outlines is None:
        return None
    check_outlines(outlines, source)
    frames = _frames(outlines, source)
    if not frames:
        return None
    dataset = new_instance(finding, Kind.SEGMENTATION, SegmentationStorage)
    stamp(dataset, finding, Kind.SEGMENTATION)
    dataset.Modality = "SEG"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentLabel, dataset.ContentCreatorName = "RESEARCH", ""
    dataset.ContentDescription = short(f"Research: {finding.score.model.name}")
    dataset.SegmentationType, dataset.SegmentsOverlap = "BINARY", "NO"
    dataset.SegmentSequence = _segments(finding, outlines)
    _pixels(dataset, outlines, frames)
    _groups(dataset, source, frames, finding.identity.instance_uid(Kind.SEGMENTATION, "places"))
    dataset.ReferencedSeriesSequence = [_series(source, series) for series in source.series]
    dataset.LossyImageCompression = "00"
    for name in _LOSSY:
        if source.first.get("LossyImageCompression") == "01" and source.first.get(name):
            setattr(dataset, name, source.first.get(name))
    return dataset


def check_outlines(outlines: Outlines, source: SourceHeaders) -> None:
    """Raise where a label map is not of the sources' frames."""
    grids = {header.shape for header in source.read}
    expected = (len(source.frames), *next(iter(grids)))
    if len(grids) > 1 or outlines.labels.shape != expected:
        message = (
            f"The outlines have the shape {outlines.labels.shape}, the sources have {expected} "
            "(frames, rows, columns), and they must be alike for a DICOM SEG."
        )
        raise CohortError(message)
    highest = int(outlines.labels.max(initial=0))
    if highest > len(outlines.structures):
        message = f"The outlines hold label {highest} of {len(outlines.structures)} structures."
        raise CohortError(message)


def _frames(outlines: Outlines, source: SourceHeaders) -> list[_Frame]:
    """Return the frames that hold any, by segment and then by place."""
    places = [source.place(position) for position in range(len(source.frames))]
    order = np.argsort([position if p is None else p.level for position, p in enumerate(places)])
    ranks = {int(position): rank for rank, position in enumerate(order, 1)}
    return [
        _Frame(segment=segment, position=int(position), rank=ranks[int(position)])
        for segment in range(1, len(outlines.structures) + 1)
        for position in order
        if (outlines.labels[position] == segment).any()
    ]


def _segments(finding: ReportedScore, outlines: Outlines) -> list[Dataset]:
    found: list[Dataset] = []
    for number, name in enumerate(outlines.structures, 1):
        category, kind = structure(name, outlines.codes.get(name))
        item = Dataset()
        item.SegmentNumber, item.SegmentLabel = number, short(name)
        item.SegmentedPropertyCategoryCodeSequence = [coded(category)]
        item.SegmentedPropertyTypeCodeSequence = [coded(kind)]
        item.SegmentAlgorithmType = "AUTOMATIC"
        item.SegmentAlgorithmName = short(finding.score.model.name)
        item.SegmentationAlgorithmIdentificationSequence = [algorithm(finding.score.model)]
        item.TrackingID = short(name)
        item.TrackingUID = finding.identity.instance_uid(Kind.SEGMENTATION, f"segment {number}")
        item.RecommendedDisplayCIELabValue = cielab(colour(number))
        found.append(item)
    return found


def _pixels(dataset: Dataset, outlines: Outlines, frames: Sequence[_Frame]) -> None:
    """Pack one bit a pixel, frame after frame without a gap (PS3.5 8.1.1, 8.2)."""
    _, dataset.Rows, dataset.Columns = outlines.labels.shape
    dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    bits = np.concatenate([(outlines.labels[f.position] == f.segment).ravel() for f in frames])
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset["PixelData"].VR = "OB"


def _groups(
    dataset: Dataset, source: SourceHeaders, frames: Sequence[_Frame], organization: str
) -> None:
    """Say of each frame what it was drawn on, and where it lies (PS3.3 C.7.6.16, A.51.5)."""
    placed = source.frame_of_reference is not None
    pointers = [
        (0x0062000B, 0x0062000A, "Segment"),
        (0x00200032, 0x00209113, "Position") if placed else (0x00209057, 0x00209111, "Frame"),
    ]
    item = Dataset()
    item.DimensionOrganizationUID = organization
    dataset.DimensionOrganizationSequence = [item]
    dataset.DimensionIndexSequence = [_dimension(organization, *found) for found in pointers]
    shared = Dataset()
    if placed:
        dataset.FrameOfReferenceUID = source.frame_of_reference
        dataset.PositionReferenceIndicator = ""
        shared.PixelMeasuresSequence = [_measures(source)]
    else:
        # Type 2C where no plane says how the patient lies (PS3.3 C.7.6.1).
        dataset.PatientOrientation = source.first.get("PatientOrientation") or ""
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_groups(source, frame) for frame in frames]


def _dimension(organization: str, pointer: int, group: int, label: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization
    item.DimensionIndexPointer, item.FunctionalGroupPointer = Tag(pointer), Tag(group)
    item.DimensionDescriptionLabel = label
    return item


def _frame_groups(source: SourceHeaders, frame: _Frame) -> Dataset:
    number, of_source = source.frames[frame.position]
    image = reference(source.headers[number], of_source)
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [coded(_PURPOSE)]
    derivation, content, segment, groups = Dataset(), Dataset(), Dataset(), Dataset()
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [coded(_SEGMENTED)]
    content.DimensionIndexValues = [frame.segment, frame.rank]
    segment.ReferencedSegmentNumber = frame.segment
    place = source.place(frame.position)
    if place is None:
        content.StackID, content.InStackPositionNumber = "1", frame.rank
    else:
        position, orientation = Dataset(), Dataset()
        position.ImagePositionPatient = [decimal(value) for value in place.position]
        orientation.ImageOrientationPatient = [decimal(value) for value in place.orientation]
        groups.PlanePositionSequence = [position]
        groups.PlaneOrientationSequence = [orientation]
    groups.DerivationImageSequence = [derivation]
    groups.FrameContentSequence = [content]
    groups.SegmentIdentificationSequence = [segment]
    return groups


def _measures(source: SourceHeaders) -> Dataset:
    """Return pixel spacing and, as they are needed of a volume, thickness and distance."""
    given = group_item(source.first, 0, "PixelMeasuresSequence") or source.first
    item = Dataset()
    item.PixelSpacing = given.PixelSpacing
    item.SliceThickness = given.get("SliceThickness") or decimal(source.gap_mm or 1.0)
    if source.gap_mm is not None:
        item.SpacingBetweenSlices = decimal(source.gap_mm)
    return item


def _series(source: SourceHeaders, series: str) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = series
    item.ReferencedInstanceSequence = [
        reference(header) for header in source.headers if header.SeriesInstanceUID == series
    ]
    return item
