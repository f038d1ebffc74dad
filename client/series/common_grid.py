"""Series of one study on one grid: where their headers say they lie.

A voxel of the grid takes, linearly between eight neighbours, what the other series shows at its
place in the patient. Where the grid is coarser by more than half, the series is smoothed first.
Nothing is registered: a patient who moved between two series lies apart in them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dicom.reasons import Reason, UnusableFile

Float = NDArray[np.float64]
#: Steps of the grid beyond which so many voxels of the series are smoothed together.
_SHRINKS = 1.5
#: Widths of the smoothing, in standard deviations, after which it ends.
_REACH = 4.0
#: Voxels beyond the outermost centres that still count as shown: they reach half a voxel.
_HALF = 0.5 + 1e-6


@dataclass(frozen=True, kw_only=True)
class ChannelVolume:
    """Another series on the grid of the one that gives it."""

    values: NDArray[np.float32]  # as the grid
    padding: NDArray[np.bool_] | None  # what the series does not show; None: it shows all


def on_grid_of(
    values: NDArray[np.float32],
    padding: NDArray[np.bool_] | None,
    affine: Float,
    grid: Float,
    shape: tuple[int, int, int],
) -> ChannelVolume:
    """Return a series (slices, rows, columns) on a grid of this shape; both affines give mm.

    NO_GEOMETRY where an affine has no inverse, or nothing of the grid is shown.
    """
    # Imported here: it takes a while to load, and most runs resample nothing.
    from scipy import ndimage

    try:
        turn = np.linalg.inv(affine) @ grid  # index of the grid -> index of the series
    except np.linalg.LinAlgError as error:
        raise UnusableFile(Reason.NO_GEOMETRY, "no distance between slices or pixels") from error
    if not np.isfinite(turn).all():
        raise UnusableFile(Reason.NO_GEOMETRY, "distances beyond any volume")
    steps = np.linalg.norm(turn[:3, :3], axis=1)  # voxels of the series in a step of the grid
    widths = [(step - 1) / 2 if step > _SHRINKS else 0.0 for step in steps]
    lowest, origin, held = values.min(), turn[:3, 3], values.shape
    if any(widths):
        # Of a long series a plane takes little: no more than that is smoothed.
        near = _near(turn, held, shape, widths)
        values = ndimage.gaussian_filter(values[near], widths, mode="nearest", truncate=_REACH)
        origin = origin - [part.start for part in near]
    found = ndimage.affine_transform(
        values, turn[:3, :3], origin, shape, order=1, mode="nearest", prefilter=False
    )
    outside = _outside(turn, held, shape)
    if outside.all():
        raise UnusableFile(Reason.NO_GEOMETRY, "it shows nothing of the grid")
    if padding is not None:
        outside |= ndimage.affine_transform(
            padding.astype(np.uint8), turn[:3, :3], turn[:3, 3], shape, order=0, mode="nearest"
        ).astype(np.bool_)
    if not outside.any():
        return ChannelVolume(values=found, padding=None)
    found[outside] = lowest
    return ChannelVolume(values=found, padding=outside)


def _near(
    turn: Float, held: tuple[int, ...], shape: tuple[int, ...], widths: Sequence[float]
) -> tuple[slice, ...]:
    """Return the part of a series that the grid's voxels are smoothed and taken of.

    At least one voxel a side, also where the grid lies beside the series.
    """
    corners = np.array(list(itertools.product(*((0, length - 1) for length in shape))))
    places = corners @ turn[:3, :3].T + turn[:3, 3]
    found = []
    for axis, (length, width) in enumerate(zip(held, widths, strict=True)):
        reach = int(_REACH * width + 0.5) + 1  # of the filter, and the neighbour between
        low, high = places[:, axis].min() - reach, places[:, axis].max() + reach
        first, last = np.clip([math.floor(low), math.ceil(high)], 0, length - 1)
        found.append(slice(int(first), int(last) + 1))
    return tuple(found)


def _outside(turn: Float, held: tuple[int, ...], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return the voxels of the grid whose centres lie outside of a series."""
    found = np.zeros(shape, np.bool_)
    index = np.ogrid[tuple(slice(0, length) for length in shape)]
    for axis, length in enumerate(held):
        place = sum(turn[axis, k] * index[k] for k in range(3)) + turn[axis, 3]
        found |= (place < -_HALF) | (place > length - 1 + _HALF)
    return found


def plane_grid(affine: Float, distance: float) -> Float:
    """Return the affine of one plane, whose step across is so many mm along its normal."""
    found = affine.copy()
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    length = float(np.linalg.norm(normal))
    if not length or not math.isfinite(length):
        raise UnusableFile(Reason.NO_GEOMETRY, "no distance between pixels")
    found[:3, 0] = normal / length * max(distance, 1e-3)
    return found
