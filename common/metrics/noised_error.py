"""Error and true number as public histograms with Gaussian noise on the counts.

Each patient is in one cell of each, whatever the others are, which is what noise can hide. The
mean error and its like come from the first, R2 from both. Bins are few, since each adds noise, and
finest where errors are small; what lies beyond the last edge counts as 0.5 of the range.

Public: error_histograms, metrics_of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from common.metrics import agreement, conformal
from common.metrics.agreement import Pairs, Range
from common.metrics.intervals import Z95, Estimate, Float, ratio, tally, unknown
from common.metrics.noised import Scale, noised_estimate
from common.metrics.noised_histogram import by_patient
from common.metrics.statistics import Statistics

#: As parts of the range; even around 0, where most errors are.
_INNER = np.array([-0.4, -0.25, -0.15, -0.075, -0.025, 0.025, 0.075, 0.15, 0.25, 0.4])
_EDGES: Float = np.r_[-1.0, _INNER, 1.0]
#: What an error in each bin counts as; the outer bins hold hardly anybody, near their inner edge.
_AT: Float = np.r_[-0.5, (_INNER[1:] + _INNER[:-1]) / 2, 0.5]
#: Lower edges of the true number's bins, but the first.
_TRUTH = np.linspace(-0.5, 0.5, 9)[1:-1]
_TRUTH_AT: Float = np.r_[_TRUTH, 0.5] - 1 / 16

_TOO_FINE = "not told where counts are noised: few bins with noise on each do not show it"
_SIGNED = Scale(-1.0, 1.0, 0.5)
#: R2 has no lower end; an interval as wide as this tells nothing.
_EXPLAINED = Scale(-np.inf, 1.0, 1.0)


def error_histograms(pairs: Pairs) -> Statistics:
    """Return one patient in one cell of each histogram, for noise; no sums.

    A prediction that is no number counts as the middle of the range.
    """
    prediction = np.nan_to_num(pairs.prediction, nan=0.0)
    error, truth = (
        by_patient(value, pairs.owner) for value in (prediction - pairs.truth, pairs.truth)
    )
    cells = {
        "error": tally(np.searchsorted(_INNER, error, side="right"), len(_AT)),
        "truth": tally(np.searchsorted(_TRUTH, truth, side="right"), len(_TRUTH_AT)),
    }
    held = {name: counts[None] for name, counts in cells.items()}
    return Statistics(patients=np.zeros(()), cells=held, sums={})


def metrics_of(statistics: Statistics, ends: Range) -> dict[str, Estimate]:
    """Return every metric of released cells; those that few bins do not show say so."""
    error, truth = (statistics.cells[name][0] for name in ("error", "truth"))
    patients = round(max(float(error.sum()), 0.0))

    def told(value: Callable[[Float], Float], scale: Scale) -> Estimate:
        found = noised_estimate([error], statistics.noise, value, partial(_exact, value), scale)
        return _in_unit(found, ends.width)

    found = dict.fromkeys((*agreement.NAMES, *conformal.NAMES), unknown(patients, _TOO_FINE))
    return found | {
        "r2": noised_estimate(
            [error, truth], statistics.noise, _explained, _explained_exact, _EXPLAINED
        ),
        "mae": told(_absolute, Scale(0.0, 1.0)),
        "rmse": told(_root, Scale(0.0, 1.0)),
        "bias": told(_mean, _SIGNED),
        "agreement_low": told(partial(_limit, -Z95), _SIGNED),
        "agreement_high": told(partial(_limit, Z95), _SIGNED),
    }


def _in_unit(found: Estimate, width: float) -> Estimate:
    return replace(
        found,
        value=width * found.value,
        low=width * found.low,
        high=width * found.high,
        bound=width * found.bound,
    )


def _mean(counts: Float, at: Float = _AT) -> Float:
    return ratio(counts @ at, counts.sum(axis=-1))


def _absolute(counts: Float, at: Float = _AT) -> Float:
    return _mean(counts, np.abs(at))


def _root(counts: Float, at: Float = _AT) -> Float:
    return np.sqrt(_mean(counts, at**2))


def _limit(side: float, counts: Float, at: Float = _AT) -> Float:
    middle = _mean(counts, at)
    return middle + side * np.sqrt(np.maximum(_mean(counts, at**2) - middle**2, 0.0))


def _explained(error: Float, truth: Float, at: Float = _AT) -> Float:
    spread = _mean(truth, _TRUTH_AT**2) - _mean(truth, _TRUTH_AT) ** 2
    return 1 - ratio(_mean(error, at**2), spread)


def _nearest_and_farthest() -> tuple[Float, Float]:
    """Return the ends of each bin that lie nearer to 0 and farther from it."""
    low, high = _EDGES[:-1], _EDGES[1:]
    near = np.where(low * high < 0, 0.0, np.where(np.abs(low) < np.abs(high), low, high))
    return near, np.where(np.abs(low) < np.abs(high), high, low)


_NEAR, _FAR = _nearest_and_farthest()


def _exact(value: Callable[..., Float], counts: Float) -> Estimate:
    """Return a metric of counts without noise, and how far its bins may have moved it."""
    ends = (_NEAR, _FAR, _EDGES[:-1], _EDGES[1:])
    found = float(value(counts[None])[0])
    moved = max(abs(float(value(counts[None], at=at)[0]) - found) for at in ends)
    return _alone(found, float(counts.sum()), moved)


def _explained_exact(error: Float, truth: Float) -> Estimate:
    found = float(_explained(error[None], truth[None])[0])
    moved = max(
        abs(float(_explained(error[None], truth[None], at=at)[0]) - found) for at in (_NEAR, _FAR)
    )
    return _alone(found, float(error.sum()), moved)


def _alone(value: float, patients: float, bound: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, patients=round(patients), bound=bound)
