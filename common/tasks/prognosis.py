"""Prognosis: time to an event by a discrete-time hazard, or an outcome by a horizon.

The Cox partial likelihood compares patients with each other, so one patient's gradient
would depend on the rest and could not be clipped. The logistic hazard (Gensheimer and
Narasimhan 2019, eq. 3) is a sum over patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.parts.ranges import bin_of
from common.config.run_config import Evaluation, PrognosisTask
from common.data.cell_values import number_of
from common.metrics.intervals import Estimate
from common.metrics.statistics import Statistics
from common.metrics.times.survival import concordance
from common.tasks.diagnosis import zero_or_one
from common.tasks.label_metrics import (
    label_draws,
    label_metrics,
    label_statistics,
    label_summary,
    row_of,
)
from common.tasks.survival_scores import (
    Grid,
    Outcomes,
    exact,
    observed_survival,
    released,
    summarised,
)
from common.tasks.task import PlainOutputs, Scores, UnusableLabel, at_least_float32

#: Hazard of an interval before anything is learned; public.
INITIAL_HAZARD = 0.08

_Values = TypeVar("_Values", Tensor, np.ndarray)


class FollowUp(NamedTuple, Generic[_Values]):
    """What a target of `Survival` holds, by name."""

    event_in: _Values  # (..., intervals) 1 where the event was seen in the interval
    at_risk: _Values  # (..., intervals) 1 where the interval counts
    time: _Values  # (...) to the event or the end of follow-up
    event: _Values  # (...) 1 where it was seen


def follow_up(target: _Values) -> FollowUp[_Values]:
    """Return the parts of targets, (..., 2 x intervals + 2)."""
    intervals = target.shape[-1] // 2 - 1
    return FollowUp(
        event_in=target[..., :intervals],
        at_risk=target[..., intervals : 2 * intervals],
        time=target[..., -2],
        event=target[..., -1],
    )


def _followed_without_event(config: PrognosisTask) -> dict[str, str]:
    row = {config.event: "0"}
    if config.time is not None:
        row[config.time] = f"{config.horizon or 1}"
    return row


class ProportionalHazards(nn.Module):
    """A network's one risk score, shared by all intervals, plus a baseline for each."""

    def __init__(self, network: nn.Module, intervals: int) -> None:
        super().__init__()
        self.network = network
        start = math.log(INITIAL_HAZARD / (1 - INITIAL_HAZARD))
        self.baseline = nn.Parameter(torch.full((intervals,), start))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return hazard logits, (items, intervals)."""
        risk: Tensor = self.network(image, table)
        return self.baseline + risk


def number_in(column: str, text: str) -> float:
    """Return a finite number from a cell, or UnusableLabel that names column and value."""
    value = number_of(text)
    if value is None or not 0 <= value <= float(np.finfo(np.float32).max):
        message = f"column {column} holds {text!r}, expected a time of 0 or more"
        raise UnusableLabel(message)
    return value


@dataclass(frozen=True, kw_only=True)
class Survival:
    """Targets are (2 x intervals + 2,): event in interval, at risk in it, time, event."""

    config: PrognosisTask

    @property
    def intervals(self) -> int:
        """Number of intervals."""
        return len(self.config.intervals)

    @property
    def outputs(self) -> int:
        """One risk score, or one hazard an interval."""
        return 1 if self.config.hazards == "proportional" else self.intervals

    @property
    def logits(self) -> int:
        """One hazard an interval."""
        return self.intervals

    def completed(self, network: nn.Module) -> nn.Module:
        """Return the network with a baseline of each interval, where hazards are proportional."""
        proportional = self.config.hazards == "proportional"
        return ProportionalHazards(network, self.intervals) if proportional else network

    @property
    def metric(self) -> str:
        """Harrell's C-index."""
        return "concordance"

    def columns(self) -> tuple[str, ...]:
        """Return the event and time columns."""
        return (self.config.event, str(self.config.time))

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return the target; see `encode_time` for what censoring inside an interval counts as."""
        event_column, time_column = self.columns()
        event = zero_or_one(event_column, row[event_column])
        time = number_in(time_column, row[time_column])
        return encode_time(time, event, np.asarray(self.config.intervals))

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return whether the event was seen, and the range of the time."""
        found = follow_up(target)
        time = bin_of(float(found.time), (0.0, *self.config.intervals))
        return row_of(float(found.event), "event", "no event"), time

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody who was followed to the horizon, without the event."""
        del size
        return self.encode(_followed_without_event(self.config))

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood of each item's intervals."""
        event_in, at_risk, _, _ = follow_up(target)
        loss = F.binary_cross_entropy_with_logits(
            at_least_float32(output), event_in, reduction="none"
        )
        return (loss * at_risk).sum(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        """Return survival at the end of each interval, (items, intervals)."""
        return F.logsigmoid(-at_least_float32(output)).cumsum(dim=1).exp()

    def risk(self, prediction: Tensor) -> Tensor:
        """Return each item's mean probability of having died over the edges, (items,), 0 to 1."""
        return 1 - prediction.mean(dim=1)

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return concordance and Brier sums, ranges of risk at the horizon and a life table."""
        return released(self._outcomes(scores), scores, self._grid, rules)

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return the C-index stratified by site, integrated Brier score and AUC at the horizon."""
        return summarised(statistics, self._grid, rules)

    def observed(self, statistics: Statistics, rules: Evaluation) -> dict[float, Estimate]:
        """Return the merged Kaplan-Meier curve at the public times."""
        return observed_survival(statistics, self._grid, rules)

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        del rules
        return exact(self._outcomes(scores), self._grid, weights)

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the C-index of each bootstrap draw."""
        del rules
        found = self._outcomes(scores)
        return concordance(found.time, found.event, found.risk, weights)

    def _outcomes(self, scores: Scores) -> Outcomes:
        found, curve = follow_up(scores.target.double().numpy()), scores.prediction.double()
        return Outcomes(
            time=found.time,
            event=found.event,
            risk=self.risk(curve).numpy(),
            curve=curve.numpy(),
            loss=scores.loss.double().numpy(),
        )

    @property
    def _grid(self) -> Grid:
        return grid_of(self.config)


def grid_of(config: PrognosisTask) -> Grid:
    """Return the public times; without a horizon, the AUC is taken in the middle."""
    horizon = config.horizon or config.intervals[len(config.intervals) // 2]
    return Grid(edges=_as_stored(config.intervals), horizon=_as_stored([horizon])[0])


def _as_stored(times: Sequence[float]) -> np.ndarray:
    """Return times as a target holds them: 0.1 in float32 is later than 0.1."""
    return np.asarray(times, np.float32).astype(np.float64)


def encode_time(time: float, event: float, edges: np.ndarray) -> np.ndarray:
    """Return (2 x intervals + 2,), the parts of FollowUp in a row.

    Who is censored inside an interval counts as having survived it when half of it had
    passed, and as not seen in it otherwise. Times beyond the last edge survive every interval.
    """
    start = np.r_[0.0, edges[:-1]]
    # The first interval holds time 0 too: an event at entry is an event.
    inside = (time > start) & (time <= edges) | ((time == 0) & (start == 0))
    hit = inside & (event == 1)
    passed_half = time >= (start + edges) / 2
    at_risk = hit | (time > edges) | (passed_half if event == 0 else inside)
    return np.concatenate([hit, at_risk, [time, event]]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class FixedHorizon(PlainOutputs):
    """Whether the event comes before the horizon; targets are (1,) of 0 or 1."""

    config: PrognosisTask

    @property
    def outputs(self) -> int:
        """One logit."""
        return 1

    @property
    def metric(self) -> str:
        """AUROC."""
        return "auroc"

    def columns(self) -> tuple[str, ...]:
        """Return the event column, and the time column where there is one."""
        time = self.config.time
        return (self.config.event,) if time is None else (self.config.event, time)

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return (1,): 1 event by the horizon, 0 followed until then without one."""
        event = zero_or_one(self.config.event, row[self.config.event])
        if self.config.time is None or self.config.horizon is None:
            return np.asarray([event], np.float32)
        time = number_in(self.config.time, row[self.config.time])
        if time < self.config.horizon and event == 0:
            message = (
                f"censored at {time:g} {self.config.unit}, before the horizon of "
                f"{self.config.horizon:g}, expected an event by then or follow-up until then"
            )
            raise UnusableLabel(message)
        return np.asarray([float(event == 1 and time <= self.config.horizon)], np.float32)

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return whether the event came."""
        return (row_of(target[0], "event", "no event"),)

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody who was followed to the horizon, without the event."""
        del size
        return self.encode(_followed_without_event(self.config))

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy by item."""
        return F.binary_cross_entropy_with_logits(
            at_least_float32(output), target, reduction="none"
        ).sum(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        """Return the probability of the event by the horizon, (items, 1)."""
        return at_least_float32(output).sigmoid()

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return counts of score ranges by outcome."""
        return label_statistics(scores, rules)

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return AUROC, Brier score and calibration of merged counts."""
        return label_summary(statistics, rules, (self.config.event,))

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        return label_metrics(scores, weights, rules, (self.config.event,))

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the AUROC of each bootstrap draw."""
        del rules
        return label_draws(scores, weights)
