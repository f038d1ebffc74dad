"""Measurements of a label map: volumes in mm3, areas in mm2 or pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from client.dicom.reading.groups import group_item
from client.dicom.reading.pixel_size import Calibration, calibration_of, pixel_mm2
from client.radiomics.measured import MeasuredStructure
from client.results import codes
from client.results.score import Outlines
from client.results.source_images import SourceHeaders


@dataclass(frozen=True, kw_only=True)
class Region:
    """A structure in the volume, or in one frame of images that are no volume."""

    structure: str
    number: int  # of the segment, from 1
    quantity: Code  # volume or area
    size: float  # in unit
    unit: Code  # mm3, mm2, or pixels where the image is not calibrated
    calibration: Calibration | None  # on which mm rest, where that has to be said
    frames: tuple[int, ...]  # of the SEG, from 1; empty where the structure is nowhere
    source: tuple[int, int] | None  # source and frame, from 0; None for a volume
    shown: tuple[int, int]  # source and frame that show most of it
    drawn: NDArray[np.bool_]  # (rows, columns) of that frame
    measured: MeasuredStructure | None = None  # of a volume: its shape and grey values


def regions(
    outlines: Outlines, source: SourceHeaders, segmentation: Dataset | None
) -> Iterator[Region]:
    """Yield what each structure measures; one that is nowhere measures 0."""
    frames = _frames(segmentation)
    measured = {one.name: one for one in outlines.measured}
    for number, name in enumerate(outlines.structures, 1):
        within = outlines.labels == number
        if source.voxel_mm3 is not None:
            held = [frame for (segment, _), frame in frames.items() if segment == number]
            most = int(np.count_nonzero(within, axis=(1, 2)).argmax())
            yield Region(
                structure=name,
                number=number,
                quantity=codes.VOLUME,
                unit=codes.MM3,
                size=float(np.count_nonzero(within)) * source.voxel_mm3,
                calibration=calibration_of(source.first),
                frames=tuple(sorted(held)),
                source=None,
                shown=source.frames[most],
                drawn=within[most],
                measured=measured.get(name),
            )
            continue
        counts = np.count_nonzero(within, axis=(1, 2))
        if not counts.any():
            yield _area(name, number, within[0], source, (0, 0), ())
        for position in np.flatnonzero(counts):
            place = source.frames[position]
            instance = str(source.headers[place[0]].SOPInstanceUID)
            frame = frames.get((number, (instance, place[1])))
            held = [] if frame is None else [frame]
            yield _area(name, number, within[position], source, place, tuple(held))


def calibrations(outlines: Outlines | None, source: SourceHeaders) -> list[str]:
    """Return on which calibrations the sizes in mm rest, a sentence each."""
    found = () if outlines is None else regions(outlines, source, None)
    said = (region.calibration for region in found)
    return list(dict.fromkeys(one.sentence for one in said if one is not None))


def _area(
    name: str,
    number: int,
    within: NDArray[np.bool_],
    source: SourceHeaders,
    place: tuple[int, int],
    frames: tuple[int, ...],
) -> Region:
    header = source.headers[place[0]]
    pixels, pixel = int(np.count_nonzero(within)), pixel_mm2(header, within)
    return Region(
        structure=name,
        number=number,
        quantity=codes.AREA,
        size=float(pixels) * (1.0 if pixel is None else pixel),
        unit=codes.PIXELS if pixel is None else codes.MM2,
        frames=frames,
        source=place,
        shown=place,
        drawn=within,
        calibration=None if pixel is None else calibration_of(header),
    )


def _frames(segmentation: Dataset | None) -> dict[tuple[int, tuple[str, int]], int]:
    """Return segment and source frame -> frame of the SEG, from 1."""
    found: dict[tuple[int, tuple[str, int]], int] = {}
    if segmentation is None:
        return found
    for index in range(int(segmentation.NumberOfFrames)):
        item = group_item(segmentation, index, "SegmentIdentificationSequence")
        derived = group_item(segmentation, index, "DerivationImageSequence")
        if item is None or derived is None:
            continue
        image = derived.SourceImageSequence[0]
        frame = int(image.get("ReferencedFrameNumber") or 1) - 1
        segment = int(item.ReferencedSegmentNumber)
        found[segment, (str(image.ReferencedSOPInstanceUID), frame)] = index + 1
    return found
