"""Probabilities as public histograms with Gaussian noise on the counts.

Joined ranges depend on where the patients are, so one patient more could change them all. Here
each patient is in one cell whatever the others are, which is what noise can hide.
Intervals with the noise in them are common.metrics.noised's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.metrics import noised
from common.metrics.auroc_interval import auroc_of_counts, merged_auroc
from common.metrics.intervals import Estimate, Float, Owners, normal_interval, ratio, tally, unknown
from common.metrics.noised import Value, noised_estimate
from common.metrics.score_ranges import Ranges, merged_average_precision

#: Few, since each adds noise; even in the logit from -2 to 2, where models that were trained with
#: privacy have their scores. Of 8, 12 and 16 these err least at the noise of shipped runs.
BINS = 8
_MOST_LOGIT = 2.0
_INNER = 1 / (1 + np.exp(-np.linspace(-_MOST_LOGIT, _MOST_LOGIT, BINS + 1)[1:-1]))
EDGES: Float = np.r_[0.0, _INNER, 1.0]
_MIDDLE: Float = (EDGES[1:] + EDGES[:-1]) / 2

#: Measured: intervals of a threshold or of gaps by bin held the truth in 36 to 90 of 100 cases.
_TOO_FINE = "not told where counts are noised: few bins with noise on each do not show it"
NOISED_AWAY = "noised counts do not hold enough of both outcomes"


class Histogram(NamedTuple):
    """Patients without and with the outcome, by bin of probability."""

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
    """Return (2 x BINS + 1,) patients: without the outcome by bin, with it, and of unknown one.

    Each patient is in one cell, whatever the score: one that is no number counts as 0.5.
    """
    cell = bin_of(np.nan_to_num(score, nan=0.5)) + BINS * (truth >= 0.5)
    return tally(np.where(np.isnan(truth), 2 * BINS, cell), 2 * BINS + 1)


def parts_of(cells: Float) -> Histogram:
    """Return released cells, (2 x BINS + 1,), as they are, noise and all."""
    return Histogram(cells[:BINS], cells[BINS : 2 * BINS])


def metrics_of(cells: Float, noise: float) -> dict[str, Estimate]:
    """Return every metric of one label's released cells, with `noise` as variance on each."""
    parts = parts_of(cells)
    patients = round(max(float(np.sum(parts)), 0.0))

    def told(value: Value, exact: Callable[[Histogram], Estimate]) -> Estimate:
        return noised_estimate(parts, noise, value, lambda *held: exact(Histogram(*held)))

    return {
        "auroc": told(auroc_of_counts, area),
        "average_precision": told(noised.precision, precision),
        "sensitivity_at_specificity": unknown(patients, _TOO_FINE),
        "brier": told(_brier, brier),
        "calibration_error": unknown(patients, _TOO_FINE),
    }


def _brier(negative: Float, positive: Float) -> Float:
    wrong = negative @ _MIDDLE**2 + positive @ (1 - _MIDDLE) ** 2
    return ratio(wrong, (negative + positive).sum(axis=1))


def area(held: Histogram) -> Estimate:
    """Return the AUROC."""
    positive, negative = _ranges(held.positive), _ranges(held.negative)
    return merged_auroc(positive, negative, held.positive.sum(), held.negative.sum())


def precision(held: Histogram) -> Estimate:
    """Return the average precision."""
    return merged_average_precision(_ranges(held.positive), _ranges(held.negative))


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


def _ranges(counts: Float) -> Ranges:
    return Ranges(counts, counts, counts)
