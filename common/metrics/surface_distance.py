"""Distances between outlines: mean symmetric surface distance and 95 % Hausdorff distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.dice import Labels
from common.metrics.intervals import Float


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
