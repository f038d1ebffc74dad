"""Probabilities as fixed public histograms: what may leave with Gaussian noise on the counts.

Joined ranges depend on where the patients are, so one patient more could change them all. Here
each patient is in one cell whatever the others are, which is what noise can hide.
The intervals leave out the noise itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.metrics.estimate import Estimate, Float, Owners, normal_interval, ratio, tally, unknown
from common.metrics.labels import RELIABILITY_BINS, merged_calibration, reliability_bin
from common.metrics.ranges import (
    Ranges,
    merged_auroc,
    merged_average_precision,
    merged_sensitivity,
)

#: Few, since each adds noise; even in the logit from -4 to 4.
BINS = 16
_MOST_LOGIT = 4.0
_INNER = 1 / (1 + np.exp(-np.linspace(-_MOST_LOGIT, _MOST_LOGIT, BINS + 1)[1:-1]))
EDGES: Float = np.r_[0.0, _INNER, 1.0]
_MIDDLE: Float = (EDGES[1:] + EDGES[:-1]) / 2

NOISED_AWAY = "noised counts do not hold enough of both outcomes"


class Histogram(NamedTuple):
    """Patients without and with the outcome, by bin of probability; nothing below zero."""

    negative: Float  # (BINS,)
    positive: Float  # (BINS,)


def by_patient(value: Float, owner: Owners) -> Float:
    """Return the mean of each patient's known rows, (patients,); nan where none is known."""
    _, place = np.unique(owner, return_inverse=True)
    known = ~np.isnan(value)
    total = tally(place, 0, np.where(known, value, 0.0))
    return ratio(total, tally(place, 0, known.astype(np.float64)))


def bin_of(probability: Float) -> NDArray[np.int64]:
    """Return the public bin of each probability."""
    return np.asarray(np.searchsorted(EDGES[1:-1], probability, side="right"), np.int64)


def histogram_of(score: Float, truth: Float) -> Float:
    """Return (2 x BINS,) patients: without the outcome by bin, then with it."""
    known = ~np.isnan(truth)
    cell = bin_of(score[known]) + BINS * (truth[known] >= 0.5)
    return tally(cell, 2 * BINS)


def histogram_from(cells: Float) -> Histogram:
    """Read released cells, (2 x BINS,); noise below zero counts as zero."""
    held = np.maximum(cells, 0.0)
    return Histogram(held[:BINS], held[BINS:])


def area(held: Histogram) -> Estimate:
    """Return the AUROC."""
    positive, negative = _ranges(held.positive), _ranges(held.negative)
    return merged_auroc(positive, negative, held.positive.sum(), held.negative.sum())


def precision(held: Histogram) -> Estimate:
    """Return the average precision."""
    return merged_average_precision(_ranges(held.positive), _ranges(held.negative))


def sensitivity(held: Histogram, specificity: float) -> Estimate:
    """Return the sensitivity at a specificity."""
    return merged_sensitivity(_ranges(held.positive), _ranges(held.negative), specificity)


def brier(held: Histogram) -> Estimate:
    """Return the Brier score of the bins' middles; `bound` if all were at one of their edges."""
    total = held.negative.sum() + held.positive.sum()
    if total <= 1:
        return unknown(0, NOISED_AWAY)

    def errors(at: Float) -> Float:
        return np.stack([at**2, (1 - at) ** 2])

    counts = np.stack(held)
    ends = np.abs(np.stack([errors(EDGES[1:]), errors(EDGES[:-1])]) - errors(_MIDDLE)).max(axis=0)
    value = float((counts * errors(_MIDDLE)).sum() / total)
    spread = max(float((counts * errors(_MIDDLE) ** 2).sum() / total) - value**2, 0.0)
    bound = float((counts * ends).sum() / total)
    return normal_interval(value, float(np.sqrt(spread / total)), round(total), bound)


def calibration(held: Histogram) -> Estimate:
    """Return the calibration error with the bins' middles as probabilities."""
    place = reliability_bin(_MIDDLE)
    table = np.stack([tally(place, RELIABILITY_BINS, part) for part in held])
    predicted = tally(place, RELIABILITY_BINS, (held.negative + held.positive) * _MIDDLE)
    return merged_calibration(table, predicted)


def _ranges(counts: Float) -> Ranges:
    return Ranges(counts, counts, counts)
