"""Scores as counts by public range.

A site joins neighbouring bins until each range holds the smallest cell of patients. Sites'
ranges differ, so each tells, by bin, how many patients' ranges begin there, how many end
there, and the count spread as widely as the scores are, around their mean. All three add up
between sites. The first two enclose every curve that the scores could have; the third lies
between them, near the scores' own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import (
    Estimate,
    Float,
    Owners,
    logit_interval,
    tally,
    unknown,
    wilson_interval,
)
from common.metrics.small_cells import ends, joined

#: Public bins of a probability, even in its logit from -12 to 12: fine where models are unsure,
#: and for rare outcomes too.
BINS = 512
_MOST_LOGIT = 12.0
#: Between which probabilities each bin lies; the outer ones reach to the ends.
EDGES: Float = np.r_[
    0.0, 1 / (1 + np.exp(-np.linspace(-_MOST_LOGIT, _MOST_LOGIT, BINS + 1)[1:-1])), 1.0
]

WITHHELD = "withheld: fewer patients than the smallest cell with, or without, the outcome"


class Ranges(NamedTuple):
    """Patients (or their weights) by bin; all three have the same total."""

    first: Float  # (bins,) by the bin in which the patient's range begins
    last: Float  # (bins,) by the bin in which it ends
    spread: Float  # (bins,) by bin, as a uniform with the mean and deviation of the range


def bin_of(score: Float) -> NDArray[np.int64]:
    """Return the public bin of each probability."""
    inside = np.clip(score, 1e-9, 1 - 1e-9)
    place = (np.log(inside / (1 - inside)) / _MOST_LOGIT + 1) / 2 * BINS
    return np.clip(place.astype(np.int64), 0, BINS - 1)


def ranges_of(
    score: Float, owner: Owners, smallest: int, weight: Float | None = None
) -> tuple[Ranges, NDArray[np.int64]]:
    """Return counts (or weights) by range, and each row's range: -1 when none can be told."""
    bins = bin_of(score)
    number = joined(bins, owner, smallest)
    if len(number) == 0 or number[0] < 0:
        return Ranges(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)), number
    last = ends(bins, number, BINS - 1)
    first = np.r_[0, last[:-1] + 1]
    held = tally(number, len(last), weight)
    begin, end = _even(bins, number, first, last)
    spread = sum((_block(*part) for part in zip(held, begin, end, strict=True)), np.zeros(BINS))
    return Ranges(tally(first, BINS, held), tally(last, BINS, held), spread), number


def _even(
    bins: NDArray[np.int64],
    number: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the uniform with each range's mean and deviation begins and ends, inside it.

    The outer ranges reach to the ends of the scale, where hardly anybody is.
    """
    count = tally(number, 1)
    mean = tally(number, 1, bins.astype(np.float64)) / count
    square = tally(number, 1, bins.astype(np.float64) ** 2) / count
    half = np.sqrt(3 * np.maximum(square - mean**2, 0.0))
    begin, end = (np.rint(at).astype(np.int64) for at in (mean - half, mean + half))
    return np.clip(begin, first, last), np.clip(end, first, last)


def _block(held: float, begin: int, end: int) -> Float:
    block = np.zeros(BINS)
    block[begin : end + 1] = held / (end - begin + 1)
    return block


def merged_sensitivity(positive: Ranges, negative: Ranges, specificity: float) -> Estimate:
    """Return sensitivity at a specificity, with Wilson's interval of the cases found.

    The interval leaves out that the threshold, too, is found from patients.
    """
    cases, controls = positive.spread.sum(), negative.spread.sum()
    if cases <= 0 or controls <= 0:
        return unknown(round(cases + controls), WITHHELD)
    allowed = (1 - specificity) * controls + 1e-9

    def most(found: Float, alarms: Float) -> float:
        return float(np.where(alarms <= allowed, found, 0.0).max() / cases)

    # At the upper edge of bin j, all that begins above it is above; what ends above it may be.
    low = most(_above(positive.first), _above(negative.last))
    # A threshold inside bin j lets through at least what begins above the bin.
    high = most(_above(positive.last)[:-1], _above(negative.first)[1:])
    value = float(np.clip(most(_above(positive.spread), _above(negative.spread)), low, high))
    bound = farthest(value, low, high)
    return wilson_interval(value, cases, round(cases + controls), bound)


def merged_average_precision(positive: Ranges, negative: Ranges) -> Estimate:
    """Return average precision with the logit interval of Boyd, Eng and Page (2013)."""
    cases, controls = positive.spread.sum(), negative.spread.sum()
    if cases <= 0 or controls <= 0:
        return unknown(round(cases + controls), WITHHELD)
    found, alarms = _above(positive.spread), _above(negative.spread)
    precision = found[:-1] / np.maximum(found[:-1] + alarms[:-1], 1e-12)
    middle = float((positive.spread * precision).sum() / cases)
    low, high = _precision_ends(positive, negative)
    value = float(np.clip(middle, low, high))
    return logit_interval(value, cases, round(cases + controls), farthest(value, low, high))


def _precision_ends(positive: Ranges, negative: Ranges) -> tuple[float, float]:
    """Return the least and greatest average precision that the ranges allow.

    The k-th highest case lies no higher than the highest bin above which k ranges may end,
    and no lower than the highest above which k begin.
    """
    surely, maybe = _above(positive.first), _above(positive.last)
    rank = np.arange(1, int(surely[0] + 1e-6) + 1) - 1e-6
    if len(rank) == 0:
        return 0.0, 1.0
    # Both fall with the bin: the last bin that still has `rank` patients at or above it.
    lowest = len(surely) - 1 - np.searchsorted(surely[::-1], rank)
    highest = len(maybe) - 1 - np.searchsorted(maybe[::-1], rank)
    worst = rank / (rank + _above(negative.last)[lowest])
    # Cases of equal score share one threshold, so as many as may lie in the bin count there.
    most = maybe[:-1] / np.maximum(maybe[:-1] + _above(negative.first)[1:], 1e-12)
    best = [most[low : high + 1].max() for low, high in zip(lowest, highest, strict=True)]
    return float(worst.mean()), float(np.mean(best))


def below(counts: Float) -> Float:
    """Return how many lie in lower bins, (bins,)."""
    return np.cumsum(counts) - counts


def _above(counts: Float) -> Float:
    """Return how many lie at or above each bin's lower edge, (bins + 1,)."""
    return np.asarray(np.r_[np.cumsum(counts[::-1])[::-1], 0.0])


def farthest(value: float, low: float, high: float) -> float:
    """Return how far from the value the farther end lies."""
    return float(max(high - value, value - low, 0.0))
