"""Predictions of classes: AUROC, precision and recall, Brier score, calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.estimate import Estimate, Float, normal_interval, unknown

#: Public bins of a score in 0 to 1, for counts that leave a site.
BINS = 32
#: Public bins of the calibration table.
RELIABILITY_BINS = 5


def auroc(score: Float, truth: Float, weights: Float) -> Float:
    """Return the area under the ROC curve, ties counting half; weights (draws, n) -> (draws,)."""
    positive, negative = _by_score(score, truth, weights)
    below = np.cumsum(negative, axis=1) - negative
    wins = (positive * (below + 0.5 * negative)).sum(axis=1)
    return _ratio(wins, positive.sum(axis=1) * negative.sum(axis=1))


def average_precision(score: Float, truth: Float, weights: Float) -> Float:
    """Return the sum of precision over steps of recall, high scores first."""
    positive, negative = (part[:, ::-1] for part in _by_score(score, truth, weights))
    hits = np.cumsum(positive, axis=1)
    precision = _ratio(hits, hits + np.cumsum(negative, axis=1))
    return _ratio((np.nan_to_num(precision) * positive).sum(axis=1), positive.sum(axis=1))


def sensitivity(score: Float, truth: Float, weights: Float, specificity: float) -> Float:
    """Return the largest sensitivity at which specificity is at least as asked."""
    positive, negative = (part[:, ::-1] for part in _by_score(score, truth, weights))
    false_alarms = _ratio(np.cumsum(negative, axis=1), negative.sum(axis=1, keepdims=True))
    found = _ratio(np.cumsum(positive, axis=1), positive.sum(axis=1, keepdims=True))
    allowed = np.where(false_alarms <= 1 - specificity + 1e-12, found, 0.0)
    return np.where(np.isnan(found[:, -1]), np.nan, allowed.max(axis=1))


def brier(score: Float, truth: Float, weights: Float) -> Float:
    """Return the mean squared distance between probability and outcome."""
    return _ratio((weights * (score - truth) ** 2).sum(axis=1), weights.sum(axis=1))


def calibration_error(score: Float, truth: Float, weights: Float) -> Float:
    """Return the mean distance of predicted and seen frequency over the public bins (ECE)."""
    bins = _bin(score, RELIABILITY_BINS)
    gap = np.zeros(len(weights))
    for number in range(RELIABILITY_BINS):
        here = weights * (bins == number)
        gap += np.abs((here * (score - truth)).sum(axis=1))
    return _ratio(gap, weights.sum(axis=1))


def _by_score(score: Float, truth: Float, weights: Float) -> tuple[Float, Float]:
    """Return weights of positives and negatives by distinct score, low first: (draws, scores)."""
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    ordered = weights[:, order]
    positive = np.add.reduceat(ordered * truth[order], first, axis=1)
    return positive, np.add.reduceat(ordered * (1 - truth[order]), first, axis=1)


def _ratio(above: Float, below: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _bin(score: Float, bins: int) -> NDArray[np.int64]:
    return np.clip((score * bins).astype(np.int64), 0, bins - 1)


# --- what may leave ----------------------------------------------------------------------


def ranges(score: Float, smallest: int) -> Float:
    """Return counts by range of public bins, (BINS, BINS): [first, last] is a released cell.

    Neighbouring bins are joined until each range holds `smallest` patients, so that no
    cell tells of fewer; what is left over joins the last range. Counts by range add up
    between sites, whose ranges differ.
    """
    counts = np.bincount(_bin(score, BINS), minlength=BINS)
    released = np.zeros((BINS, BINS))
    if counts.sum() < smallest:
        return released
    start, held = 0, 0
    groups: list[list[int]] = []
    for last, count in enumerate(counts):
        held += int(count)
        if held >= smallest:
            groups.append([start, last, held])
            start, held = last + 1, 0
    groups[-1][1:] = [BINS - 1, groups[-1][2] + held]
    for first, last, count in groups:
        released[first, last] = count
    return released


def merged_auroc(positive: Float, negative: Float) -> Estimate:
    """Return the AUROC of merged ranges with Hanley and McNeil's (1982) interval.

    Pairs whose ranges overlap count half; `bound` is half their share: the exact value
    over the released patients is nowhere farther away.
    """
    first, last = np.meshgrid(np.arange(BINS), np.arange(BINS), indexing="ij")
    held = [(first[c > 0], last[c > 0], c[c > 0]) for c in (positive, negative)]
    (p_first, p_last, p_count), (n_first, n_last, n_count) = held
    cases, controls = p_count.sum(), n_count.sum()
    patients = round(cases + controls)
    if cases <= 0 or controls <= 0:
        return unknown(patients)
    pairs = p_count[:, None] * n_count[None, :] / (cases * controls)
    wins = p_first[:, None] > n_last[None, :]
    ties = ~wins & ~(p_last[:, None] < n_first[None, :])
    value = float((pairs * (wins + 0.5 * ties)).sum())
    return normal_interval(
        value, hanley_mcneil(value, cases, controls), patients, float(0.5 * (pairs * ties).sum())
    )


def hanley_mcneil(value: float, cases: float, controls: float) -> float:
    """Return the standard error of an AUROC (Hanley and McNeil 1982, eq. 1)."""
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (
        value * (1 - value) + (cases - 1) * (q1 - value**2) + (controls - 1) * (q2 - value**2)
    )
    return float(np.sqrt(max(variance, 0.0) / (cases * controls)))


def label_cells(probability: Float, truth: Float, smallest: int) -> dict[str, Float]:
    """Return the releasable counts of one label: score ranges by class, calibration bins."""
    known = ~np.isnan(truth)
    score, seen = probability[known], truth[known]
    bins = _bin(score, RELIABILITY_BINS)
    return {
        "positive": ranges(score[seen == 1], smallest),
        "negative": ranges(score[seen == 0], smallest),
        "reliability": np.bincount(bins, minlength=RELIABILITY_BINS).astype(np.float64),
    }


def label_sums(probability: Float, truth: Float, smallest: int) -> dict[str, Float]:
    """Return the releasable sums of one label; a bin with too few patients sums to zero."""
    known = ~np.isnan(truth)
    score, seen = probability[known], truth[known]
    bins = _bin(score, RELIABILITY_BINS)
    enough = np.bincount(bins, minlength=RELIABILITY_BINS) >= smallest

    def by_bin(value: Float) -> Float:
        return np.asarray(
            np.bincount(bins, weights=value, minlength=RELIABILITY_BINS) * enough, np.float64
        )

    error = (score - seen) ** 2
    return {
        "known": np.array(float(len(score))),
        "brier": np.array(error.sum()),
        "brier_squared": np.array((error**2).sum()),
        "predicted": by_bin(score),
        "seen": by_bin(seen),
    }


def merged_calibration(cells: Float, predicted: Float, seen: Float, smallest: int) -> Estimate:
    """Return the calibration error over the bins that were released; no interval."""
    released = cells >= smallest
    total = float(cells[released].sum())
    if total <= 0:
        return unknown(0)
    value = float(np.abs(predicted - seen)[released].sum() / total)
    return Estimate(value=value, low=float("nan"), high=float("nan"), patients=round(total))


def mean_estimate(total: Float, squared: Float, count: float) -> Estimate:
    """Return a mean from its sums, with the normal interval."""
    if not count > 1:
        return unknown(0)
    value = float(total / count)
    variance = max(float(squared / count) - value**2, 0.0)
    return normal_interval(value, float(np.sqrt(variance / count)), round(count))
