"""Metrics of noised counts, with intervals that hold the noise.

    a count below zero           the nearest counts of none below zero with the same total
    too few of an outcome        its total is within two standard deviations of the noise's own:
                                 no value, and the reason says what hid it
    an interval of half a scale  likewise: a number that wide tells nothing

Intervals are by a parametric bootstrap: patients are drawn anew (Poisson) around the counts,
noise is drawn anew, and the metric is taken in the same way. The interval is 1.96 times the root
mean square of what changes, so what noise moves a metric by on average is in it, too, with half
the bound of binning as one more deviation. tests/common/metrics/test_noised.py says how
often it holds the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from common.metrics.intervals import Z95, Estimate, Float, ratio, unknown
from common.metrics.score_ranges import WITHHELD

#: Parts of the counts, each (draws, cells) -> one value a draw.
Value = Callable[..., Float]

_DRAWS = 200
_WIDEST = 0.5


def projected(counts: Float) -> Float:
    """Return the nearest counts (L2) of none below zero with the same total, (..., cells).

    Zeros where the total is not above zero (Duchi et al. 2008, figure 1).
    """
    total = counts.sum(axis=-1, keepdims=True)
    falling = -np.sort(-counts, axis=-1)
    over = (falling.cumsum(axis=-1) - total) / np.arange(1, counts.shape[-1] + 1)
    last = (falling > over).sum(axis=-1, keepdims=True) - 1
    shift = np.take_along_axis(over, np.maximum(last, 0), axis=-1)
    return np.where(total > 0, np.maximum(counts - shift, 0.0), 0.0)


class Scale(NamedTuple):
    """What a metric can be."""

    lowest: float
    highest: float
    widest: float = _WIDEST  # an interval wider than this tells nothing


#: A share, an area, a chance.
_UNIT = Scale(0.0, 1.0)


def noised_estimate(
    parts: Sequence[Float],
    noise: float,
    value: Value,
    exact: Callable[..., Estimate],
    scale: Scale = _UNIT,
) -> Estimate:
    """Return a metric of noised counts, (cells,) each; `noise` is the variance on each cell.

    `exact` gives value and bound of binning for counts without noise, `value` the value alone.
    Every part is needed: where one is hidden by the noise there is no value.
    """
    spread = float(np.sqrt(noise))
    held = [projected(part) for part in parts]
    patients = round(max(sum(float(part.sum()) for part in held), 0.0))
    if any(float(p.sum()) <= 2 * spread * np.sqrt(len(p)) for p in held):
        return unknown(patients, _hidden(spread))
    found = exact(*held)
    if not noise or np.isnan(found.value):
        return replace(found, patients=patients)
    off = _drawn(held, spread, value) - float(value(*(p[None] for p in held))[0])
    off = off[~np.isnan(off)]
    moved = float((off**2).mean()) if len(off) > _DRAWS // 2 else float("inf")
    error = float(np.sqrt(moved + (found.bound / 2) ** 2))
    low, high = (found.value + side * Z95 * error for side in (-1, 1))
    low, high = max(low, scale.lowest), min(high, scale.highest)
    if not high - low <= scale.widest:
        return unknown(patients, _hidden(spread))
    return Estimate(value=found.value, low=low, high=high, patients=patients, bound=found.bound)


def bounded_estimate(parts: Sequence[Float], noise: float, value: Value, scale: Scale) -> Estimate:
    """Return a metric that is defined on counts, noised or not: nothing is lost to binning.

    The interval is that of `noised_estimate`, in the metric's own scale.
    """
    spread = float(np.sqrt(noise))
    held = [projected(part) for part in parts]
    patients = round(max(sum(float(part.sum()) for part in held), 0.0))
    if any(float(p.sum()) <= 2 * spread * np.sqrt(len(p)) for p in held):
        return unknown(patients, _hidden(spread) if noise else WITHHELD)
    found = float(value(*(p[None] for p in held))[0])
    if np.isnan(found):
        return unknown(patients, "these counts do not show it")
    off = _drawn(held, spread, value) - found
    off = off[~np.isnan(off)]
    error = float(np.sqrt((off**2).mean())) if len(off) > _DRAWS // 2 else float("inf")
    low, high = (found + side * Z95 * error for side in (-1, 1))
    low, high = max(low, scale.lowest), min(high, scale.highest)
    if noise and high - low > _WIDEST * (scale.highest - scale.lowest):
        return unknown(patients, _hidden(spread))
    return Estimate(value=found, low=low, high=high, patients=patients)


def _hidden(spread: float) -> str:
    return f"noise of {spread:.3g} patients on each count hides it"


def _drawn(held: Sequence[Float], spread: float, value: Value) -> Float:
    """Return the metric of counts drawn anew around those held, with noise drawn anew."""
    generator = np.random.default_rng(0)  # public: what is drawn here protects nobody

    def again(part: Float) -> Float:
        size = (_DRAWS, len(part))
        return projected(generator.poisson(part, size) + generator.normal(0, spread, size))

    return value(*map(again, held))


# --- values by draw -------------------------------------------------------------------------------


def precision(negative: Float, positive: Float) -> Float:
    """Return the average precision."""
    found, alarms = _above(positive), _above(negative)
    steps = positive * found / np.maximum(found + alarms, 1e-12)
    return ratio(steps.sum(axis=1), positive.sum(axis=1))


def mean_of(at: Float, counts: Float) -> Float:
    """Return the mean of a value by cell."""
    return ratio(counts @ at, counts.sum(axis=1))


def _above(counts: Float) -> Float:
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1])
