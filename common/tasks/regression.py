"""Regression: a number between public ends.

What the network gives is scaled by public numbers and clipped to the range; the loss is of what it
gives, so that it can be learned to come back from beyond an end. A patient's number is inside the
range before anything is computed of it, so what one can move is bounded by the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from common.config.parts.ranges import bin_of
from common.config.parts.units import after_number
from common.config.run_config import Evaluation, RegressionTask
from common.data.cell_values import number_of
from common.metrics import agreement, conformal
from common.metrics.agreement import Pairs, Range
from common.metrics.intervals import Estimate, bootstrapped, weighted_mean
from common.metrics.noised_error import error_histograms, metrics_of
from common.metrics.score_ranges import ranges_of
from common.metrics.statistics import Statistics
from common.tasks.task import (
    PlainOutputs,
    Scores,
    UnusableLabel,
    at_least_float32,
    loss_estimate,
    loss_sums,
    owners,
    whole,
)

#: Public bins of predictions in which sites tell what was predicted and what was true.
FIT_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Regression(PlainOutputs):
    """Targets are (1,): the number in the run's unit, inside its range."""

    config: RegressionTask

    @property
    def outputs(self) -> int:
        """One: how far from `center`, in steps of `scale`."""
        return 1

    @property
    def metric(self) -> str:
        """Part of the variance that is explained."""
        return "r2"

    @property
    def ends(self) -> Range:
        """What the number can be."""
        return Range(low=self.config.range[0], high=self.config.range[1])

    def columns(self) -> tuple[str, ...]:
        """Return the target column."""
        return self.config.outcome_columns

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return (1,): the number, which is inside the range or counts as its nearer end."""
        column, (low, high) = self.config.target, self.config.range
        text = row[column].strip()
        value, between = number_of(text), f"a number from {low:g} to {high:g}"
        if value is None:
            held = f"holds {text!r}" if text else "is empty"
            message = f"column {column} {held}, expected {between}"
            raise UnusableLabel(message)
        if not low <= value <= high and self.config.beyond == "leave_out":
            message = (
                f"column {column} holds {text}, beyond the run's range, expected {between}"
                f"{after_number(self.config.unit)}"
            )
            raise UnusableLabel(message)
        return np.asarray([min(max(value, low), high)], np.float32)

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return the part of the range that the number is in."""
        return (bin_of(float(target[0]), self.config.edges),)

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody in the middle."""
        del size
        return np.asarray([self.config.middle], np.float32)

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return Huber's loss or the squared error of the scaled number, by item."""
        wanted = (target - self.config.middle) / self.config.step
        given = at_least_float32(output)
        if self.config.loss == "huber":
            return F.huber_loss(given, wanted.to(given.dtype), reduction="none").sum(dim=1)
        return F.mse_loss(given, wanted.to(given.dtype), reduction="none").sum(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        """Return the number, clipped to the range, (items, 1)."""
        number = self.config.middle + self.config.step * at_least_float32(output)
        return number.clamp(*self.config.range)

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return sums over patients, ranges of their error, and of predictions what was true."""
        pairs = self._pairs(scores)
        if rules.count_noise > 0:
            return error_histograms(pairs)
        smallest = rules.smallest_cell
        told = agreement.tellable(pairs, smallest)
        cells, spread = conformal.released(conformal.halves_of(pairs), smallest)
        counts, means = _fit(pairs, smallest if told else 0)
        return Statistics(
            patients=whole(scores, rules),
            cells={"misfit": cells, "fit": counts},
            sums={
                "agreement": agreement.sums_of(pairs) if told else np.zeros(7),
                "misfit_spread": spread,
                "fit": means,
            }
            | loss_sums(scores, rules),
        )

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return R2, errors, limits of agreement, calibration and intervals of merged sums."""
        if rules.count_noise > 0:
            return metrics_of(statistics, self.ends)
        cells, sums = statistics.cells, statistics.sums
        held = conformal.of_ranges(cells["misfit"], sums["misfit_spread"], self.ends.width)
        return (
            agreement.of_sums(sums["agreement"], self.ends)
            | held
            | {"loss": loss_estimate(statistics)}
        )

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        del rules
        pairs, loss = self._pairs(scores), scores.loss.double().numpy()
        return (
            agreement.exact(pairs, self.ends, weights)
            | conformal.exact(conformal.halves_of(pairs), self.ends.width, weights)
            | {"loss": bootstrapped(lambda drawn: weighted_mean(loss, drawn), weights)}
        )

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return R2 of each bootstrap draw."""
        del rules
        return agreement.r_squared(self._pairs(scores), weights)

    def _pairs(self, scores: Scores) -> Pairs:
        truth, prediction = (
            self.ends.scaled(part.double().numpy()[:, 0])
            for part in (scores.target, scores.prediction)
        )
        return Pairs(truth=truth, prediction=prediction, owner=owners(scores))


def _fit(pairs: Pairs, smallest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return patients by public bin of prediction, and sums there of prediction and truth.

    By ranges of several patients, each in the bin of its mean prediction; scaled, as the pairs
    are. smallest 0, or numbers of which many patients have the same, tell nothing: what such sums
    add up to could be counted.
    """
    count, total = np.zeros(FIT_BINS), np.zeros((2, FIT_BINS))
    many_alike = 2 * len(np.unique(pairs.truth)) < len(np.unique(pairs.owner))
    if smallest == 0 or many_alike:
        return count, total
    _, number = ranges_of(pairs.prediction + 0.5, pairs.owner, smallest)
    for place in range(int(number.max()) + 1):
        rows = number == place
        predicted, true = pairs.prediction[rows], pairs.truth[rows]
        at = min(int((predicted.mean() + 0.5) * FIT_BINS), FIT_BINS - 1)
        count[at] += len(predicted)
        total[:, at] += predicted.sum(), true.sum()
    return count, total
