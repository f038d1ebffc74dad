"""DICOM SEG and PNG masks, put onto the grid of their image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.dicom.codec.compressed import Array
from client.dicom.codec.decode import decode
from client.dicom.masks.png import drawn_around, rims, shown_values, strays
from client.dicom.masks.source_frames import FlatImage, frames_drawn_on, names_one_of
from client.dicom.masks.telling import Tell, tell_covered, to_nobody, unmatched
from client.dicom.reading.groups import group_item, text_of
from client.dicom.reading.read import SEGMENTATIONS, Header, read_dataset
from client.dicom.reading.volume import Geometry, Turn, plane_affine, turn_of
from client.dicom.reasons import Reason, UnusableFile

Labels = NDArray[np.uint8]  # 0 background, 1.. structures in the order of the configuration
Structures = Mapping[str, tuple[int, ...]]

_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
#: A frame lies on the grid when its corner is nearer than this to a voxel's, in voxels.
_ON_GRID = 0.25


def read_png(
    path: Path, shape: tuple[int, int], structures: Structures, tell: Tell = to_nobody
) -> Labels:
    """Read a PNG of the image's shape as the grey values that it shows.

    Values are a structure's own; 0 among them means every value but 0, and a picture of 0 and
    255 alone is the one structure there is. Grey values of no structure are told where they are
    few, and else refused.
    """
    if not path.is_file():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    values = shown_values(path, tell)
    if values.shape != shape:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"mask {values.shape}, image {shape}")
    labels = label_map(values, structures)
    named = {value for wanted in structures.values() for value in wanted}
    if around := drawn_around(labels):
        tell(UnusableFile(Reason.MASK_INVERTED, around))
    # A picture of one value is what `label_map` took for the one structure.
    if len(np.unique(values[values != 0])) > 1:
        for reason, detail in (
            (Reason.MASK_RIM, rims(values)),
            (Reason.MASK_GREYS, strays(values, named)),
        ):
            if detail:
                tell(UnusableFile(reason, detail))
    return labels


def label_map(values: NDArray[np.integer], structures: Structures) -> Labels:
    """Return 1.. for each structure's values, in order; later structures win where they overlap."""
    labels = np.zeros(values.shape, np.uint8)
    for number, wanted in enumerate(structures.values(), 1):
        labels[(values > 0) if 0 in wanted else np.isin(values, wanted)] = number
    if values.any() and not labels.any():
        present = np.unique(values[values != 0])
        if len(structures) == 1 and present.tolist() == [255]:
            return (values > 0).astype(np.uint8)
        found = ", ".join(str(v) for v in present[:5])
        raise UnusableFile(Reason.MASK_UNUSABLE, f"no structure has the value {found}")
    return labels


def read_segmentation(
    path: Path,
    shape: tuple[int, int, int],
    geometry: Geometry,
    structures: Structures,
    *,
    instances: frozenset[str] = frozenset(),
    tell: Tell = to_nobody,
) -> Labels:
    """Read a DICOM SEG onto a volume's grid, each frame by its own position (PS3.3 A.51).

    Of several frames of one segment at one place, as of a dynamic scan, those are taken that name
    the volume's instances.
    """
    dataset, frames = _segmentation(path, structures, tell)
    labels = np.zeros(shape, np.uint8)
    drawn: set[int] = set()
    try:
        placed = [_place(dataset, index, labels.shape, geometry) for index in range(len(frames))]
        for index in _one_at_a_place(
            dataset, placed, _wanted(dataset, frames, structures), instances
        ):
            level, turn = placed[index]
            shown = turn.values(_numbered(dataset, index, frames[index], structures)[None])[0]
            # Later structures win, in whatever order the frames stand: a tumour lies inside its
            # organ.
            np.maximum(labels[level], shown, out=labels[level])
            drawn |= set(np.unique(shown[shown > 0]).tolist())
    except UnusableFile:
        raise
    except Exception as error:
        raise _unusable(error) from error
    check_steps(labels)
    tell_covered(structures, drawn, labels, tell)
    return labels


def _one_at_a_place(
    dataset: Dataset,
    placed: Sequence[tuple[int, Turn]],
    segments: Mapping[int, int],
    instances: frozenset[str],
) -> list[int]:
    """Return the wanted frames, of which two of one segment must not lie at one place."""

    def most(frames: Iterable[int]) -> tuple[tuple[int, int], int]:
        places = Counter((segments[index], placed[index][0]) for index in frames)
        return places.most_common(1)[0] if places else ((0, 0), 0)

    if most(segments)[1] < 2:
        return list(segments)
    found = [index for index in segments if names_one_of(dataset, index, instances)]
    (segment, level), count = most(found or segments)
    if count > 1:
        message = f"{count} frames of segment {segment} lie on slice {level + 1}, as at two times"
        raise UnusableFile(Reason.MASK_UNUSABLE, message)
    return found


def check_steps(labels: Labels) -> None:
    """Refuse a structure that is drawn on every n-th slice: on the others it would be nowhere.

    So lie outlines that were drawn on thicker slices than the volume's, or to be filled in
    between. They go on from one to the next; small lesions on single slices do not.
    """
    for number in np.unique(labels[labels > 0]).tolist():
        within = labels == number
        drawn = np.flatnonzero(within.any(axis=(1, 2)))
        steps = np.diff(drawn)
        if not len(steps) or steps.min() < 2:
            continue
        going_on = [
            2 * (within[a] & within[b]).sum() > min(within[a].sum(), within[b].sum())
            for a, b in pairwise(drawn)
        ]
        if 2 * sum(going_on) > len(going_on):
            message = f"drawn on one slice of {steps.min()}, and on none between them"
            raise UnusableFile(Reason.MASK_UNUSABLE, message)


def read_image_segmentation(
    path: Path,
    header: Header,
    frame: int,
    structures: Structures,
    *,
    alone: bool = True,
    tell: Tell = to_nobody,
) -> Labels:
    """Read a DICOM SEG of a 2-D image: the frames that name it as their source.

    Frames that name none are meant as well where the image is alone, the only one of its row.
    """
    dataset, frames = _segmentation(path, structures, tell)
    if frames.shape[1:3] != header.shape:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"mask {frames.shape[1:3]}, image {header.shape}")
    labels = np.zeros(header.shape, np.uint8)
    drawn: set[int] = set()
    try:
        wanted = _wanted(dataset, frames, structures)
        image = FlatImage(header=header, frame=frame, alone=alone)
        for index in frames_drawn_on(dataset, wanted, len(frames), image):
            found = _numbered(dataset, index, frames[index], structures)
            np.maximum(labels, found, out=labels)  # later structures win
            drawn |= set(np.unique(found[found > 0]).tolist())
    except UnusableFile:
        raise
    except Exception as error:
        raise _unusable(error) from error
    tell_covered(structures, drawn, labels, tell)
    return labels


def _unusable(error: Exception) -> UnusableFile:
    """Return the reason for whatever a SEG with missing or wrong attributes makes pydicom raise."""
    return UnusableFile(Reason.MASK_UNUSABLE, f"{type(error).__name__}: {error}"[:120])


def _segmentation(path: Path, structures: Structures, tell: Tell) -> tuple[Dataset, Array]:
    if not path.is_file():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    dataset = read_dataset(path)
    if dataset.get("SOPClassUID") not in SEGMENTATIONS:
        raise UnusableFile(Reason.MASK_UNUSABLE, "not a DICOM segmentation")
    wanted = {value for values in structures.values() for value in values}
    try:
        held = {
            int(item.SegmentNumber): text_of(item, "SegmentLabel")
            for item in dataset.SegmentSequence
            if int(item.SegmentNumber)  # a label map may name its background, 0
        }
        _check_segments(wanted, set(held))
        if told := unmatched(structures, held):
            tell(UnusableFile(Reason.MASK_NAMES, told))
        frames = decode(dataset, dataset.file_meta.TransferSyntaxUID)
        _check_groups(dataset, len(frames))
        _check_fractions(dataset, frames, wanted)
    except UnusableFile as problem:
        raise UnusableFile(Reason.MASK_UNUSABLE, problem.detail) from problem
    except Exception as error:
        raise _unusable(error) from error
    return dataset, frames


def _check_groups(dataset: Dataset, count: int) -> None:
    """Refuse frames without groups of their own, which would be taken for what all share."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if own and len(own) != count:
        message = f"functional groups of {len(own)} frames, and {count} frames"
        raise UnusableFile(Reason.MASK_UNUSABLE, message)


def _check_segments(wanted: set[int], held: set[int]) -> None:
    if 0 not in wanted and not wanted & held:
        message = f"holds segments {sorted(held)}, the run wants {sorted(wanted)}"
        raise UnusableFile(Reason.MASK_UNUSABLE, message)


def _check_fractions(dataset: Dataset, frames: Array, wanted: set[int]) -> None:
    """Refuse a segment of which no voxel counts, though some are of it in part."""
    if dataset.SOPClassUID == _LABELMAP or dataset.get("SegmentationType") != "FRACTIONAL":
        return
    highest: dict[int, int] = {}
    for index, frame in enumerate(frames):
        number = _segment(dataset, index)
        highest[number] = max(highest.get(number, 0), int(frame.max()))
    for number, value in highest.items():
        if (number in wanted or 0 in wanted) and 0 < value * 2 < _whole(dataset):
            message = f"no voxel of segment {number} reaches one half ({value}/{_whole(dataset)})"
            raise UnusableFile(Reason.MASK_UNUSABLE, message)


def _numbered(dataset: Dataset, index: int, frame: Array, structures: Structures) -> Labels:
    """Return a frame's structures by number."""
    if dataset.SOPClassUID == _LABELMAP:
        # PS3.3 C.8.20.2.4: what pads a label map is background.
        segments = np.where(frame == dataset.get("PixelPaddingValue", 0), 0, frame)
    else:
        # PS3.3 C.8.20.2.3: of fractions, those from one half on.
        segments = np.where(frame * 2.0 >= _whole(dataset), _segment(dataset, index), 0)
    labels = np.zeros(frame.shape, np.uint8)
    for segment in np.unique(segments[segments > 0]):
        labels[segments == segment] = _number(int(segment), structures)
    return labels


def _segment(dataset: Dataset, index: int) -> int:
    """Return the segment of a frame; one that does not say it is of the only segment there is."""
    item = group_item(dataset, index, "SegmentIdentificationSequence")
    if item is not None:
        return int(item.ReferencedSegmentNumber)
    if len(dataset.SegmentSequence) > 1:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"frame {index + 1} does not name its segment")
    return int(dataset.SegmentSequence[0].SegmentNumber)


def _wanted(dataset: Dataset, frames: Array, structures: Structures) -> dict[int, int]:
    """Return the segment of each frame that a structure is part of; 0 for those of a label map."""
    if dataset.SOPClassUID == _LABELMAP:
        return dict.fromkeys(range(len(frames)), 0)
    segments = {index: _segment(dataset, index) for index in range(len(frames))}
    return {index: one for index, one in segments.items() if _number(one, structures)}


def _whole(dataset: Dataset) -> int:
    """Return the value that stands for a voxel which is wholly of its segment."""
    if dataset.get("SegmentationType") != "FRACTIONAL":
        return 1
    return int(dataset.MaximumFractionalValue)  # whose absence makes the mask unusable


def _number(segment: int, structures: Structures) -> int:
    """Return the last structure that a segment is part of, from 1; 0 where it is of none."""
    return max(
        (k for k, wanted in enumerate(structures.values(), 1) if segment in wanted or 0 in wanted),
        default=0,
    )


def _place(
    dataset: Dataset, index: int, shape: tuple[int, ...], geometry: Geometry
) -> tuple[int, Turn]:
    """Return the slice of a frame, and how it is turned as the volume was turned."""
    place = group_item(dataset, index, "PlanePositionSequence")
    turned_by = group_item(dataset, index, "PlaneOrientationSequence")
    measures = group_item(dataset, index, "PixelMeasuresSequence")
    if place is None or turned_by is None or measures is None:
        raise UnusableFile(Reason.MASK_UNUSABLE, "no position, orientation or spacing")
    a, b, c, d, e, f = (float(v) for v in turned_by.ImageOrientationPatient)
    spacing = float(measures.PixelSpacing[0]), float(measures.PixelSpacing[1])
    corner = np.array([float(v) for v in place.ImagePositionPatient])
    affine = plane_affine(np.cross([a, b, c], [d, e, f]), (a, b, c, d, e, f), spacing, corner)
    turn = turn_of(affine[:3, 1], affine[:3, 2])
    rows_columns = int(dataset.Rows), int(dataset.Columns)
    affine = turn.affine(affine, rows_columns)
    to_index = np.linalg.inv(geometry.affine) @ affine
    shown = rows_columns[::-1] if turn.transposed else rows_columns
    if shown != shape[1:] or np.abs(to_index[:3, 1:3] - np.eye(3)[:, 1:]).max() > 0.01:
        raise UnusableFile(Reason.MASK_UNUSABLE, "mask and image have different grids")
    level = round(float(to_index[0, 3]))
    if np.abs(to_index[:3, 3] - [level, 0, 0]).max() > _ON_GRID:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"frame {index + 1} lies between the voxels")
    if not 0 <= level < shape[0]:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"frame {index + 1} lies outside the volume")
    return level, turn
