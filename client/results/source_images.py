"""Source images of a score, as results refer to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.codec.decode import frames_of
from client.dicom.reading.groups import group_item
from client.dicom.reading.pixel_size import pixel_mm2
from client.dicom.reading.read import Cosines, Header, Position, read_dataset, read_header
from client.dicom.reading.time_axis import stack_of
from client.dicom.reading.volume import order_slices
from client.dicom.reasons import UnusableFile
from common.platform.errors import CohortError


@dataclass(frozen=True, kw_only=True)
class FramePlace:
    """Where a frame lies in the patient."""

    position: Position  # mm, of the first pixel's centre
    orientation: Cosines
    level: float  # mm along the normal


@dataclass(frozen=True, kw_only=True)
class SourceHeaders:
    """The headers of a score's sources, in its order."""

    paths: tuple[Path, ...]
    headers: tuple[Dataset, ...]  # without pixels
    read: tuple[Header, ...]  # the same, as images are read here
    spacing: tuple[float, float, float] | None  # mm between slices, rows, columns; of a volume
    frame_of_reference: str | None  # None where the frames have no place in the patient
    beside: tuple[Dataset, ...] = ()  # headers of what else was read for the score

    @property
    def all_headers(self) -> tuple[Dataset, ...]:
        """The headers of all images that the score is of."""
        return (*self.headers, *self.beside)

    @property
    def first(self) -> Dataset:
        """The header from which results take patient and study."""
        return self.headers[0]

    @property
    def series(self) -> tuple[str, ...]:
        """SeriesInstanceUIDs of the sources; several where each slice is a series of its own."""
        return tuple(dict.fromkeys(str(header.SeriesInstanceUID) for header in self.headers))

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """Source and frame, both from 0, in the order of Outlines.labels."""
        return tuple(
            (number, frame)
            for number, header in enumerate(self.headers)
            for frame in range(frames_of(header))
        )

    @property
    def voxel_mm3(self) -> float | None:
        """Return the volume of a voxel; None where the frames are no evenly spaced volume."""
        return None if self.spacing is None else math.prod(self.spacing)

    @property
    def gap_mm(self) -> float | None:
        """Return the distance of slices; None where the frames are no volume."""
        return None if self.spacing is None else self.spacing[0]

    def place(self, position: int) -> FramePlace | None:
        """Return where a frame, counted as in Outlines.labels, lies; None without geometry."""
        if self.frame_of_reference is None:
            return None
        number, frame = self.frames[position]
        header = self.read[number]
        where, cosines = header.positions[frame], header.orientations[frame]
        normal = np.cross(cosines[:3], cosines[3:])
        return FramePlace(
            position=where, orientation=cosines, level=float(normal @ np.array(where))
        )


def read_source(
    paths: Sequence[Path], beside: Sequence[Path] = (), *, one_stack: bool = True
) -> SourceHeaders:
    """Read the headers of a score's sources; CohortError where no result can be written of them.

    They are of one study, and make one stack unless several are told of together; what was read
    beside them is of the same study.
    """
    if not paths:
        message = "The score names no source, so no result can say which images it is of."
        raise CohortError(message)
    try:
        parsed = [_header(path) for path in paths]
        more = [_header(path) for path in beside]
    except UnusableFile as problem:
        message = f"A source of the score cannot be read: {problem.reason.value} {problem.detail}"
        raise CohortError(message) from problem
    headers, read = tuple(header for header, _ in parsed), tuple(found for _, found in parsed)
    _check_one_origin(read, one_stack=one_stack)
    _check_one_origin((*read, *(found for _, found in more)), one_stack=False)
    return SourceHeaders(
        paths=tuple(paths),
        headers=headers,
        read=read,
        spacing=_spacing(headers, read),
        frame_of_reference=_frame_of_reference(headers, read),
        beside=tuple(header for header, _ in more),
    )


def _header(path: Path) -> tuple[Dataset, Header]:
    """Return a source's header without the pixels, of which there may be many."""
    dataset = read_dataset(path)
    found = read_header(dataset)
    for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if name in dataset:
            delattr(dataset, name)
    return dataset, found


def _check_one_origin(read: Sequence[Header], *, one_stack: bool) -> None:
    """Raise unless all are of one series, or of series that are the slices of one stack."""
    first = read[0]
    for name in ("study", "series", "instance"):
        if not getattr(first, name):
            message = (
                f"An image without {name.capitalize()}InstanceUID was scored: a PACS could not "
                "file a result of it. Send the study again from the PACS."
            )
            raise CohortError(message)
    several = one_stack and len({header.series for header in read}) > 1
    people = {(header.patient, header.study) for header in read}
    if len(people) > 1 or (several and len({stack_of(h, "slices") for h in read}) > 1):
        message = (
            f"The {len(read)} sources of one score are of several patients, studies or series. "
            "Score each series by itself."
        )
        raise CohortError(message)


def _frame_of_reference(headers: Sequence[Dataset], read: Sequence[Header]) -> str | None:
    """Return the one frame of reference in which every frame has a place."""
    found = {str(header.get("FrameOfReferenceUID") or "") for header in headers}
    placed = all(h.positions for h in read) and all(_pixel_spacing(h) for h in headers)
    return found.pop() or None if placed and len(found) == 1 else None


def _pixel_spacing(header: Dataset) -> bool:
    measures = group_item(header, 0, "PixelMeasuresSequence") or header
    return measures.get("PixelSpacing") is not None


def _spacing(
    headers: Sequence[Dataset], read: Sequence[Header]
) -> tuple[float, float, float] | None:
    """Return the spacing of the volume that the frames make, if they make one."""
    slices = [(part, f) for part, h in zip(read, headers, strict=True) for f in range(frames_of(h))]
    if len(slices) < 2 or not all(pixel_mm2(header) for header in headers):
        return None
    try:
        return order_slices(slices)[1].spacing
    except UnusableFile:
        return None
