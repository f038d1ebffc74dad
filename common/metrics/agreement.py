"""Agreement of predicted numbers with true ones: all of it from seven sums that add up.

Numbers are scaled first: 0 is the middle of the public range and 1 its width, so that nothing is
lost where means are subtracted. `exact` takes a bootstrap; `of_sums` takes intervals as if errors
and numbers were normal together, which needs no sums of higher powers: those of a few patients
could be solved for what each of them has.

Public: Range, Pairs, Moments, sums_of, tellable, exact, of_sums, r_squared, NAMES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from common.metrics.intervals import (
    Z95,
    Estimate,
    Float,
    Owners,
    bootstrapped,
    mean_estimate,
    unknown,
)
from common.metrics.small_cells import patients_in

#: Below this part of the range squared, numbers do not differ.
_NO_SPREAD = 1e-9
#: Where there are no more values than this, sums tell how many patients have each.
_FEW_VALUES = 3
WITHHELD = "withheld: too few patients, or too few of them differ"
_NO_DIFFERENCE = "these patients do not differ, so that nothing can be said of it"

NAMES = (
    "r2",
    "mae",
    "rmse",
    "bias",
    "agreement_low",
    "agreement_high",
    "calibration_slope",
    "calibration_intercept",
)


@dataclass(frozen=True, kw_only=True)
class Range:
    """What a number can be; public."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance between the ends."""
        return self.high - self.low

    @property
    def middle(self) -> float:
        """Half way between the ends."""
        return (self.low + self.high) / 2

    def scaled(self, number: Float) -> Float:
        """Return -0.5 at the low end, 0.5 at the high one."""
        return (number - self.middle) / self.width


class Pairs(NamedTuple):
    """A site's patients (or images), scaled; never leave the site."""

    truth: Float  # (n,)
    prediction: Float  # (n,)
    owner: Owners  # (n,) which patient

    @property
    def error(self) -> Float:
        """Prediction minus truth."""
        return self.prediction - self.truth


def sums_of(pairs: Pairs, weights: Float | None = None) -> Float:
    """Return sums over rows, (7,), or (draws, 7) where rows are weighted; see `Moments`."""
    truth, prediction, _ = pairs
    parts = (
        np.ones_like(truth),
        truth,
        truth**2,
        prediction,
        prediction**2,
        truth * prediction,
        np.abs(pairs.error),
    )
    columns = np.stack(parts, axis=1)
    return np.asarray(columns.sum(axis=0) if weights is None else weights @ columns)


def tellable(pairs: Pairs, smallest: int) -> bool:
    """Return whether sums over these patients tell no small count of them.

    Of two or three values they tell how many patients have each (0 or 1 is a class, not a
    number); and where nearly all have one value, what the few others have.
    """
    truth, owner = pairs.truth, pairs.owner
    patients = len(np.unique(owner))
    if patients < smallest:
        return False
    values, place = np.unique(truth, return_inverse=True)
    counts = np.array([patients_in(owner, place == k) for k in range(len(values))])
    if len(values) <= _FEW_VALUES and counts.min() < smallest:
        return False
    others = patients_in(owner, place != int(counts.argmax()))
    return others == 0 or others >= smallest


@dataclass(frozen=True)
class Moments:
    """What sums say of numbers and their predictions; each is one value or one a draw."""

    sums: Float  # (..., 7): rows, truth, its square, prediction, its square, product, |error|

    @property
    def rows(self) -> Float:
        """How many were added up."""
        return np.asarray(self.sums[..., 0])

    def _mean(self, place: int) -> Float:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.sums[..., place] / self.rows)

    @property
    def mean_prediction(self) -> Float:
        """Mean of the predictions."""
        return self._mean(3)

    @property
    def spread(self) -> Float:
        """Variance of the truth; nan where patients do not differ."""
        return _some(self._mean(2) - self._mean(1) ** 2)

    @property
    def predicted_spread(self) -> Float:
        """Variance of predictions; nan where they do not differ."""
        return _some(self._mean(4) - self._mean(3) ** 2)

    @property
    def covariance(self) -> Float:
        """Of truth and prediction."""
        return self._mean(5) - self._mean(1) * self._mean(3)

    @property
    def squared_error(self) -> Float:
        """Mean of the squared error."""
        return np.maximum(self._mean(2) - 2 * self._mean(5) + self._mean(4), 0.0)

    @property
    def absolute_error(self) -> Float:
        """Mean of the error without its sign."""
        return self._mean(6)

    @property
    def bias(self) -> Float:
        """Mean error."""
        return self._mean(3) - self._mean(1)

    @property
    def deviation(self) -> Float:
        """Standard deviation of the error over patients, for Bland and Altman's limits."""
        rows = self.rows
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(
                np.maximum(self.squared_error - self.bias**2, 0.0) * rows / np.maximum(rows - 1, 0)
            )

    @property
    def r_squared(self) -> Float:
        """Part of the truth's variance that the predictions explain; below 0 where none is."""
        return 1 - self.squared_error / self.spread

    @property
    def slope(self) -> Float:
        """Of the line from predictions to the truth: below 1 where they are too far apart."""
        return self.covariance / self.predicted_spread

    @property
    def intercept(self) -> Float:
        """Where that line is at a prediction of 0, the middle of the range."""
        return self._mean(1) - self.slope * self._mean(3)


def _some(variance: Float) -> Float:
    return np.where(variance > _NO_SPREAD, variance, np.nan)


def r_squared(pairs: Pairs, weights: Float) -> Float:
    """Return R2 for each row of weights, (draws,)."""
    return Moments(sums_of(pairs, weights)).r_squared


def _values(sums: Float, ends: Range) -> dict[str, Float]:
    """Return every metric in the number's own unit."""
    held, width = Moments(sums), ends.width
    low, high = (held.bias + side * Z95 * held.deviation for side in (-1, 1))
    return {
        "r2": held.r_squared,
        "mae": width * held.absolute_error,
        "rmse": width * np.sqrt(held.squared_error),
        "bias": width * held.bias,
        "agreement_low": width * low,
        "agreement_high": width * high,
        "calibration_slope": held.slope,
        "calibration_intercept": width * held.intercept + ends.middle * (1 - held.slope),
    }


def exact(pairs: Pairs, ends: Range, weights: Float) -> dict[str, Estimate]:
    """Return every metric with its bootstrap interval."""

    def one(name: str, drawn: Float) -> Float:
        return _values(sums_of(pairs, drawn), ends)[name]

    return {name: bootstrapped(partial(one, name), weights) for name in NAMES}


def of_sums(sums: Float, ends: Range) -> dict[str, Estimate]:
    """Return every metric of merged sums with an interval of normal theory."""
    held = Moments(sums)
    rows = round(float(held.rows))
    if rows < 3:
        return dict.fromkeys(NAMES, unknown(0, WITHHELD))
    values, errors = _values(sums, ends), _errors(held, ends)
    found = {
        name: _estimate(float(values[name]), float(errors[name]), rows)
        for name in NAMES
        if name not in {"r2", "mae"}
    }
    total, squared = float(sums[6]), float(held.squared_error * rows)
    away = mean_estimate(total, squared, rows, most=1.0)
    found["mae"] = Estimate(
        value=ends.width * away.value,
        low=ends.width * away.low,
        high=ends.width * away.high,
        patients=rows,
    )
    found["r2"] = _of_ratio(float(values["r2"]), float(errors["r2"]), rows)
    return {name: found[name] for name in NAMES}


def _errors(held: Moments, ends: Range) -> Mapping[str, Float]:
    """Return standard errors, where truth and error are normal together.

    Of R2 that of log(1 - R2), the difference of two logarithms of variances that go together:
    a constant's R2 does not vary, though its error and the truth do.
    """
    rows, width = held.rows, ends.width
    error, spread = held.squared_error, held.spread
    variance = np.maximum(error - held.bias**2, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_mean = np.sqrt(variance / rows)
        of_squares = np.sqrt(2 * variance**2 + 4 * held.bias**2 * variance) / np.sqrt(rows)
        with_truth = held.covariance - spread
        of_ratio = (
            (of_squares / error) ** 2 + 2 / rows - 4 * with_truth**2 / (error * spread * rows)
        )
        left = np.maximum(spread - held.slope * held.covariance, 0.0)
        of_slope = np.sqrt(left / (np.maximum(rows - 2, 1) * held.predicted_spread))
        at_zero = np.sqrt(
            left / rows + (of_slope * (held.mean_prediction + ends.middle / width)) ** 2
        )
        limit = held.deviation * np.sqrt(1 / rows + Z95**2 / (2 * np.maximum(rows - 1, 1)))
    return {
        "r2": np.sqrt(np.maximum(of_ratio, 0.0)),
        "rmse": width * of_squares / (2 * np.sqrt(error)),
        "bias": width * of_mean,
        "agreement_low": width * limit,
        "agreement_high": width * limit,
        "calibration_slope": of_slope,
        "calibration_intercept": width * at_zero,
    }


def _estimate(value: float, error: float, rows: int) -> Estimate:
    if np.isnan(value):
        return unknown(rows, _NO_DIFFERENCE)
    error = 0.0 if np.isnan(error) else error  # nothing varies
    low, high = value - Z95 * error, value + Z95 * error
    return Estimate(value=value, low=low, high=high, patients=rows)


def _of_ratio(value: float, error: float, rows: int) -> Estimate:
    """Return R2 with the interval of log(1 - R2)."""
    if np.isnan(value):
        return unknown(rows, _NO_DIFFERENCE)
    left, error = 1 - value, 0.0 if np.isnan(error) else error
    low, high = (1 - left * float(np.exp(side * Z95 * error)) for side in (1, -1))
    return Estimate(value=value, low=low, high=high, patients=rows)
