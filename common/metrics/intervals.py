"""A number with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Owners = NDArray[np.int64]  # (rows,) which patient each row belongs to

#: A metric of weighted patients: weights (draws, patients) -> values (draws,).
Weighted = Callable[[Float], Float]

Z95 = 1.959964  # standard normal quantile of 0.975


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric's value with a 95 % interval."""

    value: float  # nan when it cannot be had
    low: float
    high: float
    patients: int
    bound: float = 0.0  # most that binning can have moved the value
    reason: str = ""  # why there is no value

    def to_json(self) -> dict[str, float | int | str | None]:
        """Return plain values, None for nan; the reason only where there is one."""
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(self).items()
            if name != "reason" or value
        }


def unknown(patients: int, reason: str = "") -> Estimate:
    """Return the estimate of what cannot be computed, and why."""
    nan = float("nan")
    return Estimate(value=nan, low=nan, high=nan, patients=patients, reason=reason)


def normal_interval(
    value: float, error: float, patients: int, bound: float = 0.0, most: float = 1.0
) -> Estimate:
    """Return value +- 1.96 standard errors, inside 0 to `most`."""
    return Estimate(
        value=value,
        low=max(0.0, value - Z95 * error),
        high=min(most, value + Z95 * error),
        patients=patients,
        bound=bound,
    )


def wilson_interval(value: float, count: float, patients: int, bound: float = 0.0) -> Estimate:
    """Return a proportion of `count` with Wilson's (1927) score interval."""
    square = Z95**2 / count
    middle = (value + square / 2) / (1 + square)
    half = Z95 * np.sqrt(value * (1 - value) / count + square / (4 * count)) / (1 + square)
    return Estimate(
        value=value,
        low=float(np.clip(middle - half, 0.0, value)),
        high=float(np.clip(middle + half, value, 1.0)),
        patients=patients,
        bound=bound,
    )


def logit_interval(value: float, count: float, patients: int, bound: float = 0.0) -> Estimate:
    """Return an average precision with the logit interval of Boyd, Eng and Page (2013)."""
    inside = min(max(value, 1e-6), 1 - 1e-6)
    middle = np.log(inside / (1 - inside))
    half = Z95 / np.sqrt(count * inside * (1 - inside))
    low, high = (float(0.5 + 0.5 * np.tanh((middle + side) / 2)) for side in (-half, half))
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), patients=patients, bound=bound
    )


def mean_estimate(total: float, squared: float, count: float, most: float = 1.0) -> Estimate:
    """Return a mean from its sums, with the normal interval."""
    if not count > 1:
        return unknown(0, "withheld: too few patients")
    value = float(total / count)
    variance = max(float(squared / count) - value**2, 0.0)
    return normal_interval(value, float(np.sqrt(variance / count)), round(count), most=most)


def bootstrap_weights(patients: int, draws: int, seed: int) -> Float:
    """Return how often each patient is drawn, (draws, patients): the bootstrap by patient."""
    generator = np.random.default_rng(seed)
    even = np.full(patients, 1.0 / patients)
    return generator.multinomial(patients, even, size=draws).astype(np.float64)


def bootstrapped(metric: Weighted, weights: Float) -> Estimate:
    """Return the metric with its percentile interval over the draws."""
    patients = weights.shape[1]
    if patients == 0:
        return unknown(0, "no patients")
    value = float(metric(np.ones((1, patients)))[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.zeros(0) if np.isnan(value) else metric(weights)
    return of_draws(value, values, patients)


def of_draws(value: float, values: Float, patients: int) -> Estimate:
    """Return a value with the percentile interval of what the draws gave, (draws,)."""
    if np.isnan(value):
        return unknown(patients, "these patients do not show every outcome that it needs")
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return Estimate(value=value, low=float(low), high=float(high), patients=patients)


def difference(ours: Weighted, theirs: Weighted, weights: Float) -> Estimate:
    """Return ours - theirs on the same patients, each draw the same for both."""
    return bootstrapped(lambda drawn: ours(drawn) - theirs(drawn), weights)


def mean_of_labels(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates; the interval is the mean of theirs, which is wider than due."""
    held = [part for part in parts if not np.isnan(part.value)]
    if len(parts) == 1:
        return parts[0]
    if not held:
        return unknown(max((part.patients for part in parts), default=0), parts[0].reason)
    return Estimate(
        value=float(np.mean([p.value for p in held])),
        low=float(np.mean([p.low for p in held])),
        high=float(np.mean([p.high for p in held])),
        patients=max(p.patients for p in held),
        bound=float(np.mean([p.bound for p in held])),
    )


def weighted_mean(values: Float, weights: Float) -> Float:
    """Return the mean of what is known for each draw, (draws,)."""
    known = ~np.isnan(values)
    return ratio(weights[:, known] @ values[known], weights[:, known].sum(axis=1))


def tally(place: NDArray[np.int64], cells: int, weight: Float | None = None) -> Float:
    """Return how many (or what weight) are at each place, (cells,)."""
    return np.bincount(place, weights=weight, minlength=cells).astype(np.float64)


def ratio(above: Float, below: Float) -> Float:
    """Return above / below, nan where below is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)
