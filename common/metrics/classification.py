"""Metrics of classes: average precision, sensitivity, Brier score, calibration.

Each metric takes scores (n,), outcomes of 0 or 1 (n,) and weights (draws, n), and returns
one value a draw: a bootstrap of a thousand draws is one pass over the sorted scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import Estimate, Float, mean_estimate, normal_interval, ratio, unknown

__all__ = [
    "RELIABILITY_BINS",
    "average_precision",
    "brier",
    "by_score",
    "calibration_error",
    "mean_estimate",
    "merged_calibration",
    "reliability_bin",
    "sensitivity",
]

#: Public bins of the calibration table.
RELIABILITY_BINS = 5


def average_precision(score: Float, truth: Float, weights: Float) -> Float:
    """Return the sum of precision over steps of recall, high scores first."""
    positive, negative = (part[:, ::-1] for part in by_score(score, truth, weights))
    hits = np.cumsum(positive, axis=1)
    precision = ratio(hits, hits + np.cumsum(negative, axis=1))
    return ratio((np.nan_to_num(precision) * positive).sum(axis=1), positive.sum(axis=1))


def sensitivity(score: Float, truth: Float, weights: Float, specificity: float) -> Float:
    """Return the largest sensitivity at which specificity is at least as asked."""
    positive, negative = (part[:, ::-1] for part in by_score(score, truth, weights))
    if positive.shape[1] == 0:
        return np.full(len(weights), np.nan)
    false_alarms = ratio(np.cumsum(negative, axis=1), negative.sum(axis=1, keepdims=True))
    found = ratio(np.cumsum(positive, axis=1), positive.sum(axis=1, keepdims=True))
    allowed = np.where(false_alarms <= 1 - specificity + 1e-12, found, 0.0)
    known = ~np.isnan(found[:, -1]) & ~np.isnan(false_alarms[:, -1])
    return np.where(known, np.nan_to_num(allowed).max(axis=1), np.nan)


def brier(score: Float, truth: Float, weights: Float) -> Float:
    """Return the mean squared distance between probability and outcome."""
    return ratio((weights * (score - truth) ** 2).sum(axis=1), weights.sum(axis=1))


def calibration_error(score: Float, truth: Float, weights: Float) -> Float:
    """Return the mean distance of predicted and seen frequency over the public bins (ECE)."""
    bins = reliability_bin(score)
    gap = np.zeros(len(weights))
    for number in range(RELIABILITY_BINS):
        here = weights * (bins == number)
        gap += np.abs((here * (score - truth)).sum(axis=1))
    return ratio(gap, weights.sum(axis=1))


def reliability_bin(score: Float) -> NDArray[np.int64]:
    """Return the public bin of the calibration table for each probability."""
    return np.clip((score * RELIABILITY_BINS).astype(np.int64), 0, RELIABILITY_BINS - 1)


def merged_calibration(cells: Float, predicted: Float) -> Estimate:
    """Return the calibration error from (2, bins) patients without and with the outcome.

    predicted is the sum of their probabilities, (bins,). The interval takes the sign of each
    bin's gap as known, and the outcomes as binomial.
    """
    counts, seen = cells.sum(axis=0), cells[1]
    total = float(counts.sum())
    if total <= 0:
        return unknown(0, "withheld: too few patients with, or without, the outcome")
    value = float(np.abs(predicted - seen).sum() / total)
    share = np.nan_to_num(ratio(seen, counts))
    error = float(np.sqrt((counts * share * (1 - share)).sum()) / total)
    return normal_interval(value, error, round(total))


def by_score(score: Float, truth: Float, weights: Float) -> tuple[Float, Float]:
    """Return weights of positives and negatives by distinct score, low first: (draws, scores)."""
    if len(score) == 0:
        return np.zeros((len(weights), 0)), np.zeros((len(weights), 0))
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    ordered = weights[:, order]
    positive = np.add.reduceat(ordered * truth[order], first, axis=1)
    return positive, np.add.reduceat(ordered * (1 - truth[order]), first, axis=1)
