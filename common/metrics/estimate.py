"""A number with its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: A metric of weighted patients: weights (draws, patients) -> values (draws,).
Weighted = Callable[[Float], Float]

_Z95 = 1.959964  # standard normal quantile of 0.975


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric's value with a 95 % interval."""

    value: float  # nan when it cannot be had
    low: float
    high: float
    patients: int
    bound: float = 0.0  # most that binning can have moved the value

    def to_json(self) -> dict[str, float | int | None]:
        """Return plain numbers, None for nan."""
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(self).items()
        }


def unknown(patients: int) -> Estimate:
    """Return the estimate of what cannot be computed."""
    return Estimate(value=float("nan"), low=float("nan"), high=float("nan"), patients=patients)


def normal_interval(value: float, error: float, patients: int, bound: float = 0.0) -> Estimate:
    """Return value +- 1.96 standard errors, inside 0 to 1."""
    return Estimate(
        value=value, low=max(0.0, value - _Z95 * error), high=min(1.0, value + _Z95 * error),
        patients=patients, bound=bound,
    )  # fmt: skip


def bootstrap_weights(patients: int, draws: int, seed: int) -> Float:
    """Return how often each patient is drawn, (draws, patients): the bootstrap by patient."""
    generator = np.random.default_rng(seed)
    even = np.full(patients, 1.0 / patients)
    return generator.multinomial(patients, even, size=draws).astype(np.float64)


def bootstrapped(metric: Weighted, weights: Float) -> Estimate:
    """Return the metric with its percentile interval over the draws."""
    patients = weights.shape[1]
    value = float(metric(np.ones((1, patients)))[0])
    if np.isnan(value):
        return unknown(patients)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = metric(weights)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return Estimate(value=value, low=float(low), high=float(high), patients=patients)
