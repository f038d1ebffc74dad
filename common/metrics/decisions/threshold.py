"""Metrics of labels by themselves at a threshold: yes where the probability is at least that.

from scores          `counts_at`; the interval is a bootstrap (common.metrics.intervals)
from merged ranges   `of_ranges`: ranges that the threshold may lie in are split as their spread is
from noised counts   `of_histogram`: likewise the bin that the threshold lies in
`bound` is how far the ranges, or the bin, may have moved a value. Nothing is released for these
metrics that is not released without them.

Public: METRICS, by_truth, counts_at, of_ranges, of_histogram, noised_counts, ranges_in,
Share, share_above, split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from common.metrics import noised_histogram, score_ranges
from common.metrics.intervals import Estimate, Float, ratio, unknown
from common.metrics.noised import Scale, bounded_estimate, noised_estimate, projected
from common.metrics.score_ranges import Ranges, farthest
from common.metrics.statistics import Statistics

_UNIT = Scale(0.0, 1.0)


class Share(NamedTuple):
    """Part of each bin that lies at or above a threshold, (bins,) each."""

    likely: Float  # as if even inside the bin
    least: Float
    most: Float


def share_above(edges: Float, threshold: float) -> Share:
    """Return the part of each bin above the threshold; it is known where that is an edge."""
    low, high = edges[:-1], edges[1:]
    likely = np.clip((high - threshold) / (high - low), 0.0, 1.0)
    near = np.where(np.abs(likely - np.rint(likely)) < 1e-9, np.rint(likely), likely)
    return Share(near, np.floor(near), np.ceil(near))


def counts_at(score: Float, truth: Float, weights: Float, threshold: float) -> Float:
    """Return (draws, 4): without and with the label below, without and with it above."""
    above = score >= threshold
    places = np.stack([~above * (1 - truth), ~above * truth, above * (1 - truth), above * truth])
    return np.asarray(weights @ places.T)


def by_truth(counts: Float) -> Float:
    """Return (2, 2), true by predicted, of four counts as `counts_at` gives them."""
    return counts.reshape(2, 2).T


def _accuracy(counts: Float) -> Float:
    return ratio(counts[:, 0] + counts[:, 3], counts.sum(axis=1))


def _f1(counts: Float) -> Float:
    found = 2 * counts[:, 3]
    return ratio(found, found + counts[:, 1] + counts[:, 2])


def _precision(counts: Float) -> Float:
    return ratio(counts[:, 3], counts[:, 2] + counts[:, 3])


def _recall(counts: Float) -> Float:
    return ratio(counts[:, 3], counts[:, 1] + counts[:, 3])


def _specificity(counts: Float) -> Float:
    return ratio(counts[:, 0], counts[:, 0] + counts[:, 2])


#: Each rises with those rightly above, and falls with those wrongly above.
METRICS: Mapping[str, Callable[[Float], Float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "precision": _precision,
    "recall": _recall,
    "specificity": _specificity,
}


def _counts(above: tuple[Float, Float], negative: Float, positive: Float) -> Float:
    """Return (draws, 4) of patients by bin, with the part above for those without and with it."""
    wrong, right = negative @ above[0], positive @ above[1]
    return np.stack([negative.sum(1) - wrong, positive.sum(1) - right, wrong, right], axis=1)


def _value(name: str, above: tuple[Float, Float], negative: Float, positive: Float) -> Float:
    return METRICS[name](_counts(above, negative, positive))


# --- from merged ranges ----------------------------------------------------------------------


def ranges_in(statistics: Statistics, label: int) -> tuple[Ranges, Ranges]:
    """Return the merged ranges of those without a label, and of those with it."""
    cells, spread = statistics.cells, statistics.sums["spread"][label]
    negative, positive = (
        Ranges(cells[name][label][0], cells[name][label][1], spread[outcome])
        for outcome, name in ((0, "negative"), (1, "positive"))
    )
    return negative, positive


def split(negative: Ranges, positive: Ranges, threshold: float) -> tuple[Float, Float, Float]:
    """Return counts, (4,) each: likely, those of the worst answers, those of the best ones."""
    share = share_above(score_ranges.EDGES, threshold)
    held = []
    for ranges in (negative, positive):
        least, most = ranges.first @ share.least, ranges.last @ share.most
        likely = np.clip(ranges.spread @ share.likely, least, most)
        held.append((ranges.spread.sum(), likely, least, most))
    (without, wrong, few, many), (having, right, least, most) = held
    ends = ((wrong, right), (many, least), (few, most))
    likely, worst, best = (np.array([without - w, having - r, w, r]) for w, r in ends)
    return likely, worst, best


def of_ranges(negative: Ranges, positive: Ranges, threshold: float) -> dict[str, Estimate]:
    """Return every metric of merged ranges without and with a label."""
    likely, worst, best = split(negative, positive, threshold)
    parts = [likely[[0, 2]], likely[[1, 3]]]
    whole = np.array([0.0, 1.0])
    found = {}
    for name, metric in METRICS.items():
        told = bounded_estimate(parts, 0.0, partial(_value, name, (whole, whole)), _UNIT)
        low, high = (float(metric(end[None])[0]) for end in (worst, best))
        bound = 0.0 if np.isnan(told.value) else np.nanmax([0.0, farthest(told.value, low, high)])
        found[name] = replace(told, bound=float(bound))
    return found


# --- from noised counts ----------------------------------------------------------------------


def noised_counts(cells: Float, threshold: float) -> Float:
    """Return counts, (4,), of one label's released cells; none is below zero."""
    share = share_above(noised_histogram.EDGES, threshold).likely
    negative, positive = (projected(part)[None] for part in noised_histogram.parts_of(cells))
    return np.asarray(_counts((share, share), negative, positive)[0])


def of_histogram(cells: Float, noise: float, threshold: float) -> dict[str, Estimate]:
    """Return every metric of one label's released cells, with `noise` as variance on each."""
    parts = noised_histogram.parts_of(cells)
    share = share_above(noised_histogram.EDGES, threshold)
    return {
        name: noised_estimate(
            parts,
            noise,
            partial(_value, name, (share.likely, share.likely)),
            partial(_exact, name, share),
        )
        for name in METRICS
    }


def _exact(name: str, share: Share, negative: Float, positive: Float) -> Estimate:
    def at(wrong: Float, right: Float) -> float:
        return float(_value(name, (wrong, right), negative[None], positive[None])[0])

    value = at(share.likely, share.likely)
    patients = round(float(negative.sum() + positive.sum()))
    if np.isnan(value):
        return unknown(patients, "nobody lies above the threshold")
    low, high = at(share.most, share.least), at(share.least, share.most)
    bound = float(np.nanmax([0.0, farthest(value, low, high)]))
    return Estimate(value=value, low=value, high=value, patients=patients, bound=bound)
