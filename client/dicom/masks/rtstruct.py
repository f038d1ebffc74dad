"""RTSTRUCT contours on the grid of their series (PS3.3 A.19, C.8.8.5, C.8.8.6).

A voxel belongs to a region when the region's contours on that slice enclose its centre
(contours.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.masks.contours import region_of
from client.dicom.masks.mask_remarks import Tell, tell_covered, to_nobody, unmatched
from client.dicom.masks.owner import plain_name
from client.dicom.masks.seg import check_steps
from client.dicom.masks.seg_segments import Labels, Structures
from client.dicom.quiet import quiet
from client.dicom.reading.read import read_dataset
from client.dicom.reading.volume import Float, Geometry
from client.dicom.reasons import Reason, UnusableFile

STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
#: A contour lies on a slice when it is nearer than this to its plane, in slices.
_ON_SLICE = 0.25
_FRAME = "FrameOfReferenceUID"
_EXCLUSIVE = "CLOSEDPLANAR_XOR"
_CLOSED = frozenset({"CLOSED_PLANAR", _EXCLUSIVE})


@dataclass(frozen=True, kw_only=True)
class DrawnVolume:
    """The volume on which something may be drawn."""

    shape: tuple[int, int, int]  # slices, rows, columns
    geometry: Geometry
    series: str  # SeriesInstanceUID
    instances: frozenset[str]  # SOPInstanceUIDs of its slices
    frame_of_reference: str  # empty where the images name none
    #: By instance and frame, from 0: the slice that it is; empty where that is not known.
    levels: Mapping[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Contour:
    level: int  # slice
    points: Float  # (points, 2): row, column
    exclusive: bool  # CLOSEDPLANAR_XOR


def read_structure_set(
    path: Path, drawn: DrawnVolume, structures: Structures, tell: Tell = to_nobody
) -> Labels:
    """Read the regions that are named as the structures; UnusableFile says why not.

    Where none has such a name, a structure's values are taken for the regions' numbers.
    """
    try:
        dataset = read_dataset(path)
        _check_series(dataset, drawn)
        wanted = _wanted(dataset, structures, drawn, tell)
        labels = np.zeros(drawn.shape, np.uint8)
        drawn_ones: set[int] = set()
        to_index = np.asarray(np.linalg.inv(drawn.geometry.affine), np.float64)
        contours: dict[int, list[Dataset]] = defaultdict(list)
        for item in dataset.get("ROIContourSequence") or ():
            contours[int(item.ReferencedROINumber)] += item.get("ContourSequence") or ()
        for structure, number in wanted:
            region = _region(contours[number], drawn, to_index)
            labels[region] = structure
            drawn_ones |= {structure} if region.any() else set()
    except UnusableFile:
        raise
    except Exception as error:
        # Missing or wrong attributes make pydicom and numpy raise many kinds.
        detail = f"{type(error).__name__}: {error}"[:120]
        raise UnusableFile(Reason.MASK_UNUSABLE, detail) from error
    check_steps(labels)
    tell_covered(structures, drawn_ones, labels, tell)
    return labels


def _check_series(dataset: Dataset, drawn: DrawnVolume) -> None:
    """Refuse what says that it was drawn on another series (PS3.3 C.8.8.5.1)."""
    frames = dataset.get("ReferencedFrameOfReferenceSequence") or ()
    named = {
        str(series.SeriesInstanceUID)
        for frame in frames
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }
    if named and drawn.series not in named:
        _refuse("drawn on another series")
    placed = _says_frame(dataset, drawn) or _names_images(dataset, drawn)
    if not named and not (drawn.frame_of_reference and placed):
        _refuse("names neither series nor frame of reference of its images")


def _says_frame(dataset: Dataset, drawn: DrawnVolume) -> bool:
    regions = dataset.get("StructureSetROISequence") or ()
    named = {str(item.get("ReferencedFrameOfReferenceUID") or "") for item in regions}
    return drawn.frame_of_reference in named


def _names_images(dataset: Dataset, drawn: DrawnVolume) -> bool:
    return any(
        str(one.ReferencedSOPInstanceUID) in drawn.instances
        for region in dataset.get("ROIContourSequence") or ()
        for contour in region.get("ContourSequence") or ()
        for one in contour.get("ContourImageSequence") or ()
    )


def _wanted(
    dataset: Dataset, structures: Structures, drawn: DrawnVolume, tell: Tell
) -> list[tuple[int, int]]:
    """Return (structure's number, ROINumber), structures in their order."""
    regions = {int(item.ROINumber): item for item in dataset.StructureSetROISequence}
    if len(regions) < len(dataset.StructureSetROISequence):
        _refuse("two regions of one number (3006,0022)")
    names = {number: plain_name(str(item.get("ROIName") or "")) for number, item in regions.items()}
    by_name = [
        (place, number)
        for place, name in enumerate(structures, 1)
        for number, own in names.items()
        if own == plain_name(name)
    ]
    found = by_name or [
        (place, number)
        for place, values in enumerate(structures.values(), 1)
        for number in regions
        if number in values or 0 in values
    ]
    if not found:
        held = ", ".join(str(item.get("ROIName", "?")) for item in regions.values())
        wanted = ", ".join(structures)
        _refuse(f"holds the regions {held[:60]}; the run wants {wanted[:60]}")
    for _, number in found:
        frame = str(regions[number].get("ReferencedFrameOfReferenceUID") or "")
        if drawn.frame_of_reference and frame and frame != drawn.frame_of_reference:
            _refuse("drawn in another frame of reference")
    if told := _names_told(structures, regions, found, by_name=bool(by_name)):
        tell(UnusableFile(Reason.MASK_NAMES, told))
    return found


def _names_told(
    structures: Structures,
    regions: Mapping[int, Dataset],
    found: Sequence[tuple[int, int]],
    *,
    by_name: bool,
) -> str:
    """Return what is to be told of names: none matches, or some do beside others."""
    held = {number: str(item.get("ROIName") or "") for number, item in regions.items()}
    if by_name:
        names = dict(enumerate(structures, 1))
        taken = {names[place]: tuple(n for p, n in found if p == place) for place in names}
        return unmatched(taken, held)
    pairs = [f"{list(structures)[place - 1]} is {n} {held[n]}" for place, n in found]
    return f"no region has a structure's name; by number {', '.join(pairs)[:100]}"


def _region(region: Sequence[Dataset], drawn: DrawnVolume, to_index: Float) -> NDArray[np.bool_]:
    """Return where a region is; one without contours is nowhere."""
    found = np.zeros(drawn.shape, np.bool_)
    slices: dict[int, list[_Contour]] = defaultdict(list)
    for contour in _contours(region, drawn, to_index):
        slices[contour.level].append(contour)
    for level, contours in slices.items():
        found[level] = region_of(
            [one.points for one in contours],
            [one.exclusive for one in contours],
            (drawn.shape[1], drawn.shape[2]),
        )
    if slices and not found.any():
        count = sum(map(len, slices.values()))
        detail = f"{count} contours of a region, within which no voxel has its centre"
        raise UnusableFile(Reason.MASK_LOST, detail)
    return found


def _contours(region: Sequence[Dataset], drawn: DrawnVolume, to_index: Float) -> Iterator[_Contour]:
    """Yield a region's contours on the volume's grid."""
    for contour in region:
        kind = str(contour.ContourGeometricType)
        if kind not in _CLOSED:
            _refuse(f"a contour of type {kind[:20]}, expected CLOSED_PLANAR")
        images = contour.get("ContourImageSequence") or ()
        if not {str(one.ReferencedSOPInstanceUID) for one in images} <= drawn.instances:
            _refuse("a contour is drawn on an image that is not in the series")
        if any(float(v) for v in contour.get("ContourOffsetVector") or ()):
            _refuse("a contour is moved by a Contour Offset Vector (3006,0045)")
        points = np.array([float(v) for v in contour.ContourData]).reshape(-1, 3)
        if len(points) < 3 or not np.isfinite(points).all():
            _refuse(f"a contour of {len(points)} points, expected at least 3")
        if int(contour.get("NumberOfContourPoints") or len(points)) != len(points):
            _refuse(f"a contour of {contour.NumberOfContourPoints} points that holds {len(points)}")
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        level = round(float(index[:, 0].mean()))
        if np.abs(index[:, 0] - level).max() > _ON_SLICE:
            _refuse("a contour does not lie on one slice")
        if not 0 <= level < drawn.shape[0]:
            _refuse("a contour lies outside the volume")
        named = _levels(images, drawn)
        if named and level not in named:
            _refuse(f"a contour names slice {min(named) + 1} and lies on slice {level + 1}")
        _check_inside(index[:, 1:], drawn)
        yield _Contour(level=level, points=index[:, 1:], exclusive=kind == _EXCLUSIVE)


def _levels(images: Iterable[Dataset], drawn: DrawnVolume) -> set[int]:
    """Return the slices of the images that a contour names; none where they are not known."""
    found: set[int] = set()
    for image in images:
        instance, number = str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber")
        numbers = number if isinstance(number, MultiValue) else [number]
        wanted = {int(one) - 1 for one in numbers if one is not None and one != ""}
        found |= {
            level
            for (own, frame), level in drawn.levels.items()
            if own == instance and (not wanted or frame in wanted)
        }
    return found


def _check_inside(outline: Float, drawn: DrawnVolume) -> None:
    """Refuse a contour that leaves the images; the outermost voxels reach half a voxel further."""
    if (outline < -1).any() or (outline > np.array(drawn.shape[1:])).any():
        _refuse("a contour lies outside the images")


def frame_of_reference(path: Path) -> str:
    """Return an image's FrameOfReferenceUID; empty where it has none."""
    with quiet():
        found = dcmread(path, force=True, stop_before_pixels=True, specific_tags=[_FRAME])
    return str(found.get(_FRAME) or "")


def _refuse(detail: str) -> NoReturn:
    raise UnusableFile(Reason.MASK_UNUSABLE, detail)
