"""Metrics of outlines: Dice and surface distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import Float

Labels = NDArray[np.integer]  # (items, *spatial): 0 background, 1.. structures


def dice_by_item(predicted: Labels, truth: Labels, structures: int) -> Float:
    """Return Dice by item, (items, structures + 1); the last column is all structures together.

    nan where the truth does not hold the structure: an empty truth says nothing about
    overlap, and is counted by `false_alarms` instead.
    """
    columns = [(predicted == k, truth == k) for k in range(1, structures + 1)]
    columns.append((predicted > 0, truth > 0))
    return np.stack([_dice(a, b) for a, b in columns], axis=1)


def _dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Float:
    axes = tuple(range(1, truth.ndim))
    both = (predicted & truth).sum(axes)
    sizes = predicted.sum(axes) + truth.sum(axes)
    present = truth.any(axes)
    return np.where(present, 2.0 * both / np.maximum(sizes, 1), np.nan)


def false_alarms(predicted: Labels, truth: Labels) -> Float:
    """Return 1 where something is outlined on an item without any structure, nan on others."""
    axes = tuple(range(1, truth.ndim))
    empty = ~(truth > 0).any(axes)
    return np.where(empty, (predicted > 0).any(axes).astype(np.float64), np.nan)


def distances_by_item(
    predicted: Labels, truth: Labels, structures: int, spacing: tuple[float, ...]
) -> Float:
    """Return distances between outlines by item, (items, structures + 1, 2), in `spacing`'s unit.

    The last structure is all together; the two are the mean symmetric surface distance and the
    95 % Hausdorff distance, the greater of both directions. nan where prediction or truth
    is empty: a structure that is missed altogether shows in its Dice.
    """
    found = np.full((len(truth), structures + 1, 2), np.nan)
    for item, (guess, seen) in enumerate(zip(predicted, truth, strict=True)):
        for number in range(structures):
            found[item, number] = _distances(guess == number + 1, seen == number + 1, spacing)
        # One structure is all of them.
        found[item, -1] = (
            found[item, 0] if structures == 1 else _distances(guess > 0, seen > 0, spacing)
        )
    return found


def _distances(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, ...]
) -> tuple[float, float]:
    if not predicted.any() or not truth.any():
        return float("nan"), float("nan")
    # Imported here: it takes longer to load than a small round.
    from scipy.ndimage import binary_erosion, distance_transform_edt

    box = _box(predicted | truth)  # all of both outlines lies inside, so distances stay the same
    surfaces = [mask[box] & ~binary_erosion(mask[box]) for mask in (predicted, truth)]
    away = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    there, back = away[1][surfaces[0]], away[0][surfaces[1]]
    far = max(float(np.percentile(part, 95)) for part in (there, back))
    return float(np.r_[there, back].mean()), far


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds all of a mask."""
    places = np.nonzero(mask)
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in places)
