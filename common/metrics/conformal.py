"""Intervals by split conformal prediction (Vovk et al. 2005): their width, and what they hold.

Patients are halved by their place, which says nothing of them. The errors of each half give the
width of an interval for the other: at least `COVERAGE` of patients like the first half's have their
true number inside. What is told is the mean width, and the part of all patients whose number was
inside, each by the interval of the half that it is not in.

Errors are without sign, as a part of the public range (common.metrics.agreement.Range), in the
public bins of a probability. A site joins neighbouring bins to ranges of several patients
(common/metrics/score_ranges.py), each half by itself: no patient is in both.

Public: COVERAGE, Halves, halves_of, exact, released, of_ranges, NAMES.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.metrics.agreement import WITHHELD, Pairs
from common.metrics.intervals import (
    Z95,
    Estimate,
    Float,
    Owners,
    of_draws,
    ratio,
    unknown,
    wilson_interval,
)
from common.metrics.score_ranges import BINS, EDGES, farthest, ranges_of
from common.metrics.small_cells import patients_in

#: What an interval promises; public.
COVERAGE = 0.9
NAMES = ("interval_coverage", "interval_half_width")


class Halves(NamedTuple):
    """A site's patients (or images); never leave the site."""

    misfit: Float  # (n,) error without sign, 0 to 1 of the range
    half: NDArray[np.int64]  # (n,) 0 or 1
    owner: Owners  # (n,) which patient


def halves_of(pairs: Pairs) -> Halves:
    """Return patients in two halves, a patient's rows in one of them."""
    _, place = np.unique(pairs.owner, return_inverse=True)
    return Halves(np.clip(np.abs(pairs.error), 0.0, 1.0), place.astype(np.int64) % 2, pairs.owner)


def needed(count: Float) -> Float:
    """Return how many errors an interval has to hold, so that it holds the next one as promised."""
    return np.ceil((count + 1) * COVERAGE - 1e-9)


# --- where the patients are ----------------------------------------------------------------


def exact(halves: Halves, width: float, weights: Float) -> dict[str, Estimate]:
    """Return both metrics with bootstrap intervals; `width` is that of the range."""
    patients = weights.shape[1]
    if patients == 0:
        return dict.fromkeys(NAMES, unknown(0, "no patients"))
    whole = _drawn(halves, np.ones((1, patients)))
    drawn = _drawn(halves, weights)
    return {
        name: of_draws(float(value[0]) * scale, values * scale, patients)
        for name, value, values, scale in zip(NAMES, whole, drawn, (1.0, width), strict=True)
    }


def _drawn(halves: Halves, weights: Float) -> tuple[Float, Float]:
    """Return coverage and half width for each row of weights; nan where a half is empty."""
    order = np.argsort(halves.misfit, kind="stable")
    misfit, half, drawn = halves.misfit[order], halves.half[order], weights[:, order]
    each = [drawn * (half == number) for number in (0, 1)]
    limits = [_limit(misfit, part) for part in each]
    inside = sum(
        (part * (misfit <= limit[:, None])).sum(axis=1)
        for part, limit in zip(each, limits[::-1], strict=True)
    )
    return ratio(np.asarray(inside), drawn.sum(axis=1)), np.mean(limits, axis=0)


def _limit(misfit: Float, weights: Float) -> Float:
    """Return the smallest misfit that is not exceeded by as many as are needed, (draws,).

    1, the whole range, where there are too few; nan where there is nobody.
    """
    held, count = weights.cumsum(axis=1), weights.sum(axis=1)
    reached = held >= needed(count)[:, None] - 1e-9
    place = reached.argmax(axis=1) if reached.shape[1] else np.zeros(len(weights), np.int64)
    found = np.where(reached.any(axis=1), misfit[place] if len(misfit) else 1.0, 1.0)
    return np.where(count > 0, found, np.nan)


# --- what may leave ------------------------------------------------------------------------


def released(halves: Halves, smallest: int) -> tuple[Float, Float]:
    """Return counts by range, (2 halves, first and last bin, BINS), and spread, (2, BINS).

    Zeros where a half has too few patients.
    """
    cells, spread = np.zeros((2, 2, BINS)), np.zeros((2, BINS))
    each = [halves.half == number for number in (0, 1)]
    if min(patients_in(halves.owner, rows) for rows in each) < smallest:
        return cells, spread
    for number, rows in enumerate(each):
        held, _ = ranges_of(halves.misfit[rows], halves.owner[rows], smallest)
        cells[number], spread[number] = np.stack([held.first, held.last]), held.spread
    return cells, spread


def of_ranges(cells: Float, spread: Float, width: float) -> dict[str, Estimate]:
    """Return both metrics of merged counts; `bound` is what the ranges leave open."""
    counts = spread.sum(axis=1)
    if counts.min() < 1:
        return dict.fromkeys(NAMES, unknown(0, WITHHELD))
    total = float(counts.sum())
    middle = [_bin(part, counts[k]) for k, part in enumerate(spread)]
    low = [_bin(part[0], counts[k]) for k, part in enumerate(cells)]
    high = [_bin(part[1], counts[k]) for k, part in enumerate(cells)]

    def inside(parts: Float, limits: list[int]) -> float:
        return sum(
            float(p[: limit + 1].sum()) for p, limit in zip(parts, limits[::-1], strict=True)
        )

    covered = inside(spread, middle) / total
    fewest, most = inside(cells[:, 1], low) / total, inside(cells[:, 0], high) / total
    value = float(np.mean([_middle(place) for place in middle]))
    near, far = (
        float(np.mean([EDGES[place + shift] for place in places]))
        for places, shift in ((low, 0), (high, 1))
    )
    ends = [_order(part, counts[k]) for k, part in enumerate(spread)]
    below, above = (float(np.mean([_middle(end[side]) for end in ends])) for side in (0, 1))
    return {
        "interval_coverage": wilson_interval(
            min(covered, 1.0), total, round(total), farthest(covered, fewest, most)
        ),
        "interval_half_width": Estimate(
            value=width * value,
            low=width * min(below, value),
            high=width * max(above, value),
            patients=round(total),
            bound=width * farthest(value, near, far),
        ),
    }


def _bin(counts: Float, total: float) -> int:
    """Return the bin in which as many errors as are needed are reached; the last for too few."""
    return _reached(counts, float(needed(np.asarray(total))))


def _order(counts: Float, total: float) -> tuple[int, int]:
    """Return the bins of the ranks between which the quantile of all such patients lies."""
    rank = float(needed(np.asarray(total)))
    away = Z95 * float(np.sqrt(total * COVERAGE * (1 - COVERAGE)))
    return _reached(counts, max(rank - away, 1.0)), _reached(counts, rank + away)


def _reached(counts: Float, rank: float) -> int:
    reached = counts.cumsum() >= rank - 1e-6
    return int(reached.argmax()) if reached.any() else BINS - 1


def _middle(place: int) -> float:
    """Return the middle of a bin; the last one is the whole range."""
    return 1.0 if place == BINS - 1 else float((EDGES[place] + EDGES[place + 1]) / 2)
