"""Which frames of a DICOM SEG were drawn on a 2-D image.

A frame names the images that it was drawn on (PS3.3 C.7.6.16.2.6). A reference without frame
numbers is to all frames of its image (PS3.3 table 10-3), and so it does not say on which of
several an outline was drawn. Where frame and image lie may still say it; else the mask is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.dicom.reading.groups import group_item, group_items, text_of
from client.dicom.reading.read import Header
from client.dicom.reasons import Reason, UnusableFile

#: A frame lies on the grid when its corner is nearer than this to a voxel's, in voxels.
_ON_GRID = 0.25
#: Directions and sizes that differ by more than this are others.
_TURNED = 0.01
#: A frame lies in an image's plane when it is nearer than this to it, in slices.
_IN_PLANE = 0.5

Sources = frozenset[tuple[str, int | None]]  # SOPInstanceUID; frame from 0, None for all


@dataclass(frozen=True, kw_only=True)
class FlatImage:
    """The 2-D image that a mask is for."""

    header: Header
    frame: int  # of the object, from 0
    alone: bool  # the only image of its row


def frames_drawn_on(
    dataset: Dataset, segments: Mapping[int, int], count: int, image: FlatImage
) -> list[int]:
    """Return the frames that were drawn on an image, of those that hold something wanted.

    segments are the wanted frames, each with its segment (0 for a label map, which holds all).
    Frames that name no image are meant as well where they lie in its plane, or where it is alone,
    the only one of its row.
    Raises MASK_UNUSABLE where nothing says which frame was drawn on which.
    """
    sources = [_sources(dataset, index) for index in range(count)]
    if not image.alone and not all(
        sources[index] or _lies_in(dataset, index, image) is not None for index in range(count)
    ):
        _refuse("does not say on which of the row's images it was drawn")
    named = [index for index in range(count) if _may_be_of(dataset, index, sources[index], image)]
    if count and not named:
        _refuse("drawn on another image")
    found = [
        index
        for index in named
        if index in segments and _is_of(dataset, index, sources[index], image)
    ]
    found = _one_of_each(dataset, found, segments, image)
    for index in found:
        _check_plane(dataset, index, image)
    return found


def names_one_of(dataset: Dataset, index: int, instances: frozenset[str]) -> bool:
    """Return whether a frame says that it was drawn on one of these instances."""
    return any(instance in instances for instance, _ in _sources(dataset, index))


def _sources(dataset: Dataset, index: int) -> Sources:
    """Return the instances and frames that a frame was drawn on, as far as it says so."""
    found: set[tuple[str, int | None]] = set()
    for derivation in group_items(dataset, index, "DerivationImageSequence"):
        for source in derivation.get("SourceImageSequence") or ():
            number = source.get("ReferencedFrameNumber")
            numbers = number if isinstance(number, MultiValue) else [number]
            frames = [None if one is None or one == "" else int(one) - 1 for one in numbers]
            found |= {(str(source.ReferencedSOPInstanceUID), one) for one in frames or [None]}
    return frozenset(found)


def _may_be_of(dataset: Dataset, index: int, sources: Sources, image: FlatImage) -> bool:
    """Return whether a frame names the image, or none, and does not lie elsewhere."""
    header = image.header
    frames = {frame for instance, frame in sources if instance == header.instance}
    for frame in frames - {None}:
        if frame is not None and not 0 <= frame < header.frames:
            _refuse(f"drawn on frame {frame + 1} of an image of {header.frames}")
    if image.frame in frames or (header.frames == 1 and frames):
        return True
    if sources and None not in frames:
        return False
    return _lies_in(dataset, index, image) is not False


def _is_of(dataset: Dataset, index: int, sources: Sources, image: FlatImage) -> bool:
    """Return whether a frame that may be of an image is; MASK_UNUSABLE where nothing says so."""
    header = image.header
    certain = header.frames == 1 or (header.instance, image.frame) in sources
    if not certain and not _lies_in(dataset, index, image):
        _refuse(
            f"{'names an image' if sources else 'names no image'}, and not on which of its "
            f"{header.frames} frames it was drawn (ReferencedFrameNumber)"
        )
    return True


def _one_of_each(
    dataset: Dataset, frames: list[int], segments: Mapping[int, int], image: FlatImage
) -> list[int]:
    """Return one frame a segment: together, several would be the outlines of other images, too."""
    if _most(frames, segments) > 1:
        frames = [index for index in frames if _lies_in(dataset, index, image) is not False]
    if _most(frames, segments) > 1:
        _refuse(f"{len(frames)} frames may be of one image, and nothing says which was drawn on it")
    return frames


def _most(frames: Sequence[int], segments: Mapping[int, int]) -> int:
    return max(Counter(segments[index] for index in frames).values(), default=0)


def _lies_in(dataset: Dataset, index: int, image: FlatImage) -> bool | None:
    """Return whether a frame lies in the plane of an image; None where nothing says it.

    Frames of an image that lie in one plane, as those of a loop, are not told apart by it.
    """
    header = image.header
    place = group_item(dataset, index, "PlanePositionSequence")
    frame_of_reference = text_of(dataset, "FrameOfReferenceUID")
    if place is None or not header.positions or not header.frame_of_reference:
        return None
    if frame_of_reference != header.frame_of_reference:
        return None
    corner = np.array(place.ImagePositionPatient, np.float64)
    away = [_away(header, frame, corner) for frame in range(header.frames)]
    if away[image.frame] > _reach(header):
        return False
    return True if sum(one <= _reach(header) for one in away) == 1 else None


def _away(header: Header, frame: int, corner: np.ndarray) -> float:
    """Return how far a corner lies from the plane of a frame, in mm."""
    cosines = np.array(header.orientations[frame])
    normal = np.cross(cosines[:3], cosines[3:])
    return abs(float((corner - np.array(header.positions[frame])) @ normal))


def _reach(header: Header) -> float:
    """Return how far from an image's plane is still in it, in mm."""
    thickness = header.thickness
    return _IN_PLANE * (thickness if thickness and thickness > 0 else max(header.spacing or (1.0,)))


def _check_plane(dataset: Dataset, index: int, image: FlatImage) -> None:
    """Refuse a frame that lies otherwise than its image, where both say how they lie."""
    header, frame = image.header, image.frame
    place = group_item(dataset, index, "PlanePositionSequence")
    turned_by = group_item(dataset, index, "PlaneOrientationSequence")
    measures = group_item(dataset, index, "PixelMeasuresSequence")
    if turned_by is None or not header.orientations:
        _check_moved(dataset, index, header)
        return
    cosines = np.array(header.orientations[frame])
    if np.abs(np.array(turned_by.ImageOrientationPatient, np.float64) - cosines).max() > _TURNED:
        _refuse("drawn in another orientation than the image's")
    if place is None or measures is None or header.spacing is None:
        _check_moved(dataset, index, header)
        return
    spacing = np.array(header.spacing)
    corner = np.array(place.ImagePositionPatient, np.float64)
    apart = corner - np.array(header.positions[frame])
    aside = np.array([apart @ cosines[3:], apart @ cosines[:3]]) / spacing  # rows, columns
    stretched = np.array(measures.PixelSpacing, np.float64) / spacing - 1
    if np.abs(aside).max() > _ON_GRID or np.abs(stretched).max() > _TURNED:
        _refuse("mask and image have different grids")
    if _away(header, frame, corner) > _reach(header):
        _refuse(f"names an image and lies {_away(header, frame, corner):.2f} mm from its plane")


def _check_moved(dataset: Dataset, index: int, header: Header) -> None:
    """Refuse a frame whose pixels are not those of its image (PS3.3 table 10-3, (0028,135A))."""
    for derivation in group_items(dataset, index, "DerivationImageSequence"):
        for source in derivation.get("SourceImageSequence") or ():
            kept = str(source.get("SpatialLocationsPreserved") or "YES")
            if source.ReferencedSOPInstanceUID == header.instance and kept != "YES":
                _refuse(f"its pixels lie otherwise than the image's (0028,135A: {kept[:20]})")


def _refuse(detail: str) -> NoReturn:
    raise UnusableFile(Reason.MASK_UNUSABLE, detail)
