"""Dice of outlines: by item, and its mean of noised counts with an interval.

The interval of exact sums is `mean_estimate` of common/metrics/intervals.py, called where
segmentation is summarised (common/tasks/segmentation.py).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import Estimate, Float, Owners, mean_estimate, tally
from common.metrics.noised import mean_of, noised_estimate
from common.metrics.noised_histogram import by_patient
from common.metrics.statistics import Statistics

#: Public bins of Dice for noised counts.
_BINS = 10

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


def dice_histogram(dice: Float, owner: Owners) -> Statistics:
    """Return patients by their mean Dice: each in one cell a structure, for noise.

    The last cell is that of patients without the structure.
    """
    columns = [by_patient(column, owner) for column in dice.T]
    cells = [tally(_bin_of(column), _BINS + 1) for column in columns]
    return Statistics(patients=np.zeros(()), cells={"dice": np.stack(cells)}, sums={})


def _bin_of(dice: Float) -> NDArray[np.int64]:
    inside = np.clip(np.nan_to_num(dice), 0.0, 1.0)
    place = np.minimum((inside * _BINS).astype(np.int64), _BINS - 1)
    return np.where(np.isnan(dice), _BINS, place)


def mean_of_histogram(cells: Float, noise: float) -> Estimate:
    """Return the mean Dice of one structure's noised counts, with its interval."""
    middle = (np.arange(_BINS) + 0.5) / _BINS

    def exact(counts: Float) -> Estimate:
        total, squared = float(counts @ middle), float(counts @ middle**2)
        found = mean_estimate(total, squared, float(counts.sum()))
        return replace(found, bound=0.5 / _BINS)

    return noised_estimate([cells[:_BINS]], noise, partial(mean_of, middle), exact)
