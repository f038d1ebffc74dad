"""Slices to a volume, with every way in which they may not fit looked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dicom.read import Header, UnusableFile
from client.dicom.reasons import Reason

#: Cosines that differ by less are the same orientation; scanners round to 1e-4 or so.
_SAME_DIRECTION = 1e-3
#: Slice gaps may differ by this part of the usual gap.
_SAME_GAP = 0.1


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a volume lies; index (slice, row, column) -> mm in the patient (LPS)."""

    affine: NDArray[np.float64]  # (4, 4)
    spacing: tuple[float, float, float]  # slice, row, column distance in mm


def order_slices(headers: Sequence[tuple[Header, int]]) -> tuple[list[int], Geometry]:
    """Return the order of (header, frame) slices along their normal, and the geometry.

    UnusableFile with MISSING_SLICES, DUPLICATE_POSITION, MIXED_ORIENTATION, NO_GEOMETRY or
    TOO_FEW_SLICES. A gantry tilt stays in the affine: its slice axis is where the slices are.
    """
    if any(not header.positions or header.spacing is None for header, _ in headers):
        raise UnusableFile(Reason.NO_GEOMETRY)
    if len(headers) < 2:
        raise UnusableFile(Reason.TOO_FEW_SLICES, f"{len(headers)} slice")
    cosines = np.array([header.orientation for header, _ in headers])
    if np.abs(cosines - cosines[0]).max() > _SAME_DIRECTION:
        raise UnusableFile(Reason.MIXED_ORIENTATION)
    along_row, along_column = cosines[0, :3], cosines[0, 3:]
    normal = np.cross(along_row, along_column)
    positions = np.array([header.positions[frame] for header, frame in headers])
    level = positions @ normal
    order = [int(i) for i in np.argsort(level, kind="stable")]
    gaps = np.diff(level[order])
    usual = float(np.median(gaps))
    if gaps.min() <= _SAME_GAP * max(usual, 1e-3):
        raise UnusableFile(Reason.DUPLICATE_POSITION, f"{len(headers)} slices")
    if np.abs(gaps - usual).max() > _SAME_GAP * usual:
        detail = f"gaps of {gaps.min():.2f} to {gaps.max():.2f} mm"
        raise UnusableFile(Reason.MISSING_SLICES, detail)
    spacing = headers[0][0].spacing or (1.0, 1.0)
    step = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    affine = np.eye(4)
    # Down the rows runs the second cosine, along a row the first (PS3.3 C.7.6.2.1.1).
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        step, along_column * spacing[0], along_row * spacing[1],
    )  # fmt: skip
    affine[:3, 3] = positions[order[0]]
    return order, Geometry(affine=affine, spacing=(usual, spacing[0], spacing[1]))
