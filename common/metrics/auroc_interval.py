"""AUROC: exact from scores, merged from counts, each with its interval.

from scores          `auroc`; its interval is a bootstrap (common.metrics.intervals.bootstrapped)
from merged ranges   `merged_auroc`, with the interval of `hanley_mcneil`
from noised counts   `auroc_of_counts`; its interval is common.metrics.noised.noised_estimate's
"""

from __future__ import annotations

import numpy as np

from common.metrics.classification import by_score
from common.metrics.intervals import Estimate, Float, normal_interval, ratio, unknown
from common.metrics.score_ranges import WITHHELD, Ranges, below, farthest


def auroc(score: Float, truth: Float, weights: Float) -> Float:
    """Return the area under the ROC curve, ties counting half; weights (draws, n) -> (draws,)."""
    positive, negative = by_score(score, truth, weights)
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + 0.5 * negative)).sum(axis=1)
    return ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))


def merged_auroc(positive: Ranges, negative: Ranges, cases: float, controls: float) -> Estimate:
    """Return the AUROC of merged ranges with Hanley and McNeil's (1982) interval.

    The exact value over the same patients is within `bound`: that is at most the share of
    pairs whose ranges overlap, and near half of it.
    """
    patients = round(cases + controls)
    pairs = positive.spread.sum() * negative.spread.sum()
    if cases <= 0 or controls <= 0 or pairs <= 0:
        return unknown(patients, WITHHELD)
    low = (positive.first * below(negative.last)).sum() / pairs
    high = 1 - (negative.first * below(positive.last)).sum() / pairs
    middle = (positive.spread * (below(negative.spread) + 0.5 * negative.spread)).sum() / pairs
    value = float(np.clip(middle, low, high))
    error = hanley_mcneil(value, cases, controls)
    return normal_interval(value, error, patients, farthest(value, low, high))


def auroc_of_counts(negative: Float, positive: Float) -> Float:
    """Return the AUROC of counts by bin, low first."""
    below = negative.cumsum(axis=1) - negative / 2
    return ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def hanley_mcneil(value: float, cases: float, controls: float) -> float:
    """Return the standard error of an AUROC (Hanley and McNeil 1982, eq. 1)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (
        value * (1 - value) + (cases - 1) * (q1 - value**2) + (controls - 1) * (q2 - value**2)
    )
    return float(np.sqrt(max(variance, 0.0) / (cases * controls)))
