"""DICOM SEG masks, put onto the grid of their image (PS3.3 A.51)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.masks.mask_remarks import Tell, to_nobody
from client.dicom.masks.seg_segments import (
    Labels,
    Sheet,
    Structures,
    open_segmentation,
    unusable,
    wanted_frames,
)
from client.dicom.masks.seg_source_frames import FlatImage, frames_drawn_on, names_one_of
from client.dicom.reading.groups import group_item
from client.dicom.reading.read import Header
from client.dicom.reading.volume import Geometry, Turn, plane_affine, turn_of
from client.dicom.reasons import Reason, UnusableFile

#: A frame lies on the grid when its corner is nearer than this to a voxel's, in voxels.
_ON_GRID = 0.25


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
    dataset, frames = open_segmentation(path, structures, tell)
    sheet = Sheet.of(shape)
    try:
        placed = [_place(dataset, index, shape, geometry) for index in range(len(frames))]
        for index in _one_at_a_place(
            dataset, placed, wanted_frames(dataset, frames, structures), instances
        ):
            level, turn = placed[index]
            frame = turn.values(frames[index][None])[0]
            sheet.at(level).draw(dataset, index, frame, structures)
    except UnusableFile:
        raise
    except Exception as error:
        raise unusable(error) from error
    check_steps(sheet.labels)
    sheet.tell(structures, tell)
    return sheet.labels


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
    dataset, frames = open_segmentation(path, structures, tell)
    if frames.shape[1:3] != header.shape:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"mask {frames.shape[1:3]}, image {header.shape}")
    sheet = Sheet.of(header.shape)
    try:
        wanted = wanted_frames(dataset, frames, structures)
        image = FlatImage(header=header, frame=frame, alone=alone)
        for index in frames_drawn_on(dataset, wanted, len(frames), image):
            sheet.draw(dataset, index, frames[index], structures)
    except UnusableFile:
        raise
    except Exception as error:
        raise unusable(error) from error
    sheet.tell(structures, tell)
    return sheet.labels


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
