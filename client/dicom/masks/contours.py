"""Which voxels the closed contours of one region enclose on one slice.

PS3.3 C.8.8.6.3 knows two ways to leave something out: a keyhole, where one contour leads in and
out by a narrow channel, and contours of type CLOSEDPLANAR_XOR, of which a voxel is in an odd
number. Of CLOSED_PLANAR contours it says nothing where they overlap. Programs write holes as rings
of that type, too, so one that lies wholly within another is a hole, one within a hole an island;
contours that cross are parts of one region, and enclose what either encloses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from client.dicom.reading.volume import Float
from client.dicom.reasons import Reason, UnusableFile

Region = NDArray[np.bool_]  # (rows, columns)

#: A contour is within another that it leaves by less than this, in voxels: coordinates are rounded.
_TOUCHING = 0.05
#: Points along a contour lie this near to each other when it is compared, in voxels.
_STEP = 0.5
#: Part of a contour's voxels that it may go around twice, as small loops of a hand do.
_TWICE = 0.01


def region_of(
    contours: Sequence[Float], exclusive: Sequence[bool], shape: tuple[int, int]
) -> Region:
    """Return the voxels whose centres a region's contours on one slice enclose.

    Contours are points of (row, column), exclusive those of type CLOSEDPLANAR_XOR.
    """
    if not any(exclusive):
        return _combined(contours, shape)
    if not all(exclusive):
        _refuse("CLOSED_PLANAR and CLOSEDPLANAR_XOR contours of one region on one slice")
    found = np.zeros(shape, np.bool_)
    for contour in contours:
        found ^= enclosed(contour, shape)
    return found


def _combined(contours: Sequence[Float], shape: tuple[int, int]) -> Region:
    """Return what contours enclose, those within others as holes and islands."""
    distinct = _distinct(contours)
    areas = [enclosed(contour, shape) for contour in distinct]
    around = _containers(distinct)
    depths = _depths(around)
    found = np.zeros(shape, np.bool_)
    for place, area in enumerate(areas):
        if depths[place] % 2:
            continue
        solid = area.copy()
        for hole, holders in enumerate(around):
            if place in holders and depths[hole] == depths[place] + 1:
                solid &= ~areas[hole]
        found |= solid
    return found


def _distinct(contours: Sequence[Float]) -> list[Float]:
    """Return contours of which none is another once more, from whichever point it begins."""
    found: list[Float] = []
    for contour in contours:
        if not any(_within(contour, own) and _within(own, contour) for own in found):
            found.append(contour)
    return found


def _containers(contours: Sequence[Float]) -> list[set[int]]:
    """Return for each contour the others that it lies wholly within."""
    return [
        {n for n, outer in enumerate(contours) if n != place and _within(inner, outer)}
        for place, inner in enumerate(contours)
    ]


def _depths(around: Sequence[set[int]]) -> list[int]:
    """Return for each contour how many lie around it one in the other."""
    depths = [0] * len(around)
    # Whoever lies around a contour has fewer around itself, so comes first.
    for place in sorted(range(len(around)), key=lambda one: len(around[one])):
        depths[place] = max((depths[outer] + 1 for outer in around[place]), default=0)
    return depths


def _within(inner: Float, outer: Float) -> bool:
    """Return whether a contour lies in another, or on it."""
    low, high = outer.min(axis=0) - _TOUCHING, outer.max(axis=0) + _TOUCHING
    if (inner < low).any() or (inner > high).any():
        return False
    points = _along(inner)
    beside = points[~_holds(outer, points)]
    return not len(beside) or bool((_distances(outer, beside) <= _TOUCHING).all())


def _along(contour: Float) -> Float:
    """Return points along a contour, its corners among them."""
    following = np.roll(contour, -1, axis=0)
    steps = np.ceil(np.linalg.norm(following - contour, axis=1) / _STEP).astype(int).clip(1)
    corner = np.repeat(np.arange(len(contour)), steps)
    first = np.cumsum(steps) - steps
    part = (np.arange(len(corner)) - first[corner]) / steps[corner]
    return np.asarray(contour[corner] + part[:, None] * (following - contour)[corner])


def _holds(contour: Float, points: Float) -> Region:
    """Return which points a contour encloses, by the even-odd rule."""
    found = np.zeros(len(points), np.bool_)
    row, column = points.T
    for (r0, c0), (r1, c1) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
        if r0 != r1:
            crossed = (r0 <= row) != (r1 <= row)
            found ^= crossed & (c0 + (row - r0) / (r1 - r0) * (c1 - c0) > column)
    return found


def _distances(contour: Float, points: Float) -> Float:
    """Return how far points lie from a contour."""
    found = np.full(len(points), np.inf)
    for start, end in zip(contour, np.roll(contour, -1, axis=0), strict=True):
        along = end - start
        length = float(along @ along)
        part = ((points - start) @ along / length).clip(0, 1) if length else np.zeros(len(points))
        nearest = start + part[:, None] * along
        np.minimum(found, np.linalg.norm(points - nearest, axis=1), out=found)
    return found


def enclosed(contour: Float, shape: tuple[int, int]) -> Region:
    """Return which voxels' centres lie inside one contour.

    What it goes around twice in one sense is a hole where a channel leads to it and back. Else the
    contour overlaps itself, and is refused, unless it is as little as a hand makes.
    """
    wound = windings(contour, shape)
    twice = (wound != 0) & (wound % 2 == 0)
    count = int(np.count_nonzero(twice))
    if count and _has_channel(contour):
        return np.asarray(wound % 2 == 1)
    if count > _TWICE * np.count_nonzero(wound):
        _refuse(f"a contour crosses itself and goes around {count} voxels twice")
    return np.asarray(wound != 0)


def _has_channel(contour: Float) -> bool:
    """Return whether a contour goes somewhere and back again on one line."""
    corners = [tuple(corner) for corner in np.round(contour, 3).tolist()]
    edges = set(zip(corners, corners[1:] + corners[:1], strict=True))
    return any(start != end and (end, start) in edges for start, end in edges)


def windings(contour: Float, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return how often a contour of (row, column) goes around each voxel's centre."""
    row, column = contour.T
    next_row, next_column = np.roll(row, -1), np.roll(column, -1)
    found = np.zeros(shape, np.int64)
    low = max(int(np.ceil(row.min())), 0)
    high = min(int(np.floor(row.max())), shape[0] - 1)
    for line in range(low, high + 1):
        # Half open, so that a corner on the line is counted once.
        crossed = (row <= line) != (next_row <= line)
        part = (line - row[crossed]) / (next_row[crossed] - row[crossed])
        at = column[crossed] + part * (next_column[crossed] - column[crossed])
        starts = np.clip(np.ceil(at).astype(np.int64), 0, shape[1])
        sense = np.where(next_row[crossed] > row[crossed], 1.0, -1.0)
        turns = np.bincount(starts, sense, minlength=shape[1] + 1)[: shape[1]]
        found[line] = np.cumsum(turns).astype(np.int64)
    return found


def _refuse(detail: str) -> NoReturn:
    raise UnusableFile(Reason.MASK_UNUSABLE, detail)
