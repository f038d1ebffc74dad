"""Competing risks: which of several causes ends the follow-up, and when.

Cause-specific discrete hazards (Tutz and Schmid 2016, chapter 8): in each interval a softmax over
the causes and going on, so that the loss is a sum over patients, as privacy needs. From them the
cumulative incidence of each cause; those of all causes add up to less than 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.parts.ranges import bin_of
from common.config.run_config import Evaluation, PrognosisTask
from common.data.cell_values import expected_one_of, one_of
from common.metrics.intervals import Estimate, bootstrapped, weighted_mean
from common.metrics.statistics import Statistics
from common.tasks.competing_scores import AUC, CauseOutcomes, CauseScores
from common.tasks.prognosis import INITIAL_HAZARD, encode_time, follow_up, grid_of, number_in
from common.tasks.task import (
    Scores,
    UnusableLabel,
    at_least_float32,
    loss_estimate,
    loss_sums,
    owners,
    whole,
)


class CauseHazards(nn.Module):
    """A network's risk score of each cause, and a baseline of each cause and interval."""

    def __init__(self, network: nn.Module, causes: int, intervals: int) -> None:
        super().__init__()
        self.network = network
        start = math.log(INITIAL_HAZARD / causes / (1 - INITIAL_HAZARD))
        self.baseline = nn.Parameter(torch.full((causes, intervals), start))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return logits against going on, (items, causes x intervals), a cause after another."""
        risk: Tensor = self.network(image, table)
        return (self.baseline + risk[:, :, None]).flatten(1)


@dataclass(frozen=True, kw_only=True)
class CompetingRisks:
    """Targets are those of survival, with the cause's number in place of 1."""

    config: PrognosisTask

    @property
    def causes(self) -> int:
        """Number of causes."""
        return len(self.config.causes)

    @property
    def intervals(self) -> int:
        """Number of intervals."""
        return len(self.config.intervals)

    @property
    def outputs(self) -> int:
        """One risk score a cause, or one hazard a cause and interval."""
        return self.causes if self.config.hazards == "proportional" else self.logits

    @property
    def logits(self) -> int:
        """One hazard a cause and interval."""
        return self.causes * self.intervals

    def completed(self, network: nn.Module) -> nn.Module:
        """Return the network with a baseline of each interval, where hazards are proportional."""
        proportional = self.config.hazards == "proportional"
        return CauseHazards(network, self.causes, self.intervals) if proportional else network

    @property
    def metric(self) -> str:
        """AUC at the horizon, a mean over the causes."""
        return AUC

    def columns(self) -> tuple[str, ...]:
        """Return the event and time columns."""
        return (self.config.event, str(self.config.time))

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return the target, or UnusableLabel that names column and value."""
        event_column, time_column = self.columns()
        known = (self.config.censored, *self.config.causes)
        text = row[event_column].strip()
        found = one_of(text, known)
        if found is None:
            held = f"holds {text!r}" if text else "is empty"
            message = f"column {event_column} {held}, expected {expected_one_of(text, known)}"
            raise UnusableLabel(message)
        cause, time = known.index(found), number_in(time_column, row[time_column])
        target = encode_time(time, float(cause > 0), np.asarray(self.config.intervals))
        target[: self.intervals] *= cause
        target[-1] = cause
        return target

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return the cause, and the range of the time."""
        found = follow_up(target)
        names = ("no event", *self.config.causes)
        time = bin_of(float(found.time), (0.0, *self.config.intervals))
        return names[int(found.event)], time

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody who was followed to the end, without any cause."""
        del size
        last = f"{self.config.intervals[-1]}"
        return self.encode({self.config.event: self.config.censored, str(self.config.time): last})

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood of what came in each item's intervals."""
        cause_in, at_risk, _, _ = follow_up(target)
        logits = self._chances(output)
        happened = torch.stack([cause_in == number for number in range(self.causes + 1)], dim=-2)
        return -((logits * happened).sum(dim=1) * at_risk).sum(dim=1)

    def predict(self, output: Tensor) -> Tensor:
        """Return the incidence of each cause at the end of each interval, (items, causes x times).

        A cause after another.
        """
        chance = self._chances(output)
        free = chance[:, 0].cumsum(dim=1)
        before = F.pad(free, (1, 0))[:, :-1]
        each = (chance[:, 1:] + before[:, None]).exp()
        return each.cumsum(dim=2).clamp_max(1.0).flatten(1)

    def _chances(self, output: Tensor) -> Tensor:
        """Return logarithms of going on, and of each cause, (items, 1 + causes, intervals)."""
        logits = at_least_float32(output).reshape(-1, self.causes, self.intervals)
        return F.pad(logits, (0, 0, 1, 0)).log_softmax(dim=1)

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return a table by interval and cause, ranges of risk at the horizon, sums of errors."""
        found = self._outcomes(scores)
        if rules.count_noise > 0:
            return self._scores.noisable(found)
        patients = whole(scores, rules)
        told = self._scores.released(found, rules.smallest_cell, patients)
        return replace(told, sums={**told.sums, **loss_sums(scores, rules)})

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return AUC, Brier score and incidence of each cause, of merged counts and sums."""
        if rules.count_noise > 0:
            return self._scores.of_noised(statistics)
        return self._scores.of_released(statistics) | {"loss": loss_estimate(statistics)}

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals; censoring weights are the whole sample's."""
        del rules
        loss = scores.loss.double().numpy()
        return self._scores.exact(self._outcomes(scores), weights) | {
            "loss": bootstrapped(partial(weighted_mean, loss), weights)
        }

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the mean AUC at the horizon of each bootstrap draw, of causes that it shows."""
        del rules
        return self._scores.mean_area(self._outcomes(scores), weights)

    @property
    def _scores(self) -> CauseScores:
        return CauseScores(names=self.config.causes, grid=grid_of(self.config))

    def _outcomes(self, scores: Scores) -> CauseOutcomes:
        found = follow_up(scores.target.double().numpy())
        curve = scores.prediction.double().numpy()
        return CauseOutcomes(
            time=found.time,
            cause=found.event,
            curve=curve.reshape(len(curve), self.causes, self.intervals),
            owner=owners(scores),
        )
