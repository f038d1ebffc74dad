"""Predictions of outlines: Dice and surface distance, one value an item and structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.estimate import Float

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


def surface_distance_by_item(predicted: Labels, truth: Labels, spacing: tuple[float, ...]) -> Float:
    """Return the mean symmetric surface distance by item, (items,), all structures together.

    In the unit of `spacing`; nan where prediction or truth is empty.
    """
    return np.array(
        [_surface_distance(p > 0, t > 0, spacing) for p, t in zip(predicted, truth, strict=True)]
    )


def _surface_distance(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: tuple[float, ...]
) -> float:
    if not predicted.any() or not truth.any():
        return float("nan")
    # Imported here: it takes longer to load than a small round.
    from scipy.ndimage import binary_erosion, distance_transform_edt

    surfaces = [mask & ~binary_erosion(mask) for mask in (predicted, truth)]
    away = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    distances = np.r_[away[1][surfaces[0]], away[0][surfaces[1]]]
    return float(distances.mean())
