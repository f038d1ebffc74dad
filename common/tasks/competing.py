"""Competing risks: which of several causes ends the follow-up, and when.

Cause-specific discrete hazards (Tutz and Schmid 2016, chapter 8): in each interval a softmax over
the causes and going on, so that the loss is a sum over patients, as privacy needs. From them the
cumulative incidence of each cause; those of all causes add up to less than 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.parts.ranges import bin_of
from common.config.run_config import Evaluation, PrognosisTask
from common.data.cell_values import expected_one_of, one_of
from common.metrics import noised_histogram
from common.metrics.auroc_interval import auroc_of_counts, merged_auroc
from common.metrics.intervals import (
    Estimate,
    Float,
    Owners,
    bootstrapped,
    mean_estimate,
    mean_of_labels,
    of_draws,
    ratio,
    unknown,
    weighted_mean,
)
from common.metrics.noised import Scale, bounded_estimate, noised_estimate
from common.metrics.noised_histogram import Histogram, by_patient
from common.metrics.score_ranges import Ranges
from common.metrics.small_cells import patients_in
from common.metrics.statistics import Statistics
from common.metrics.times import competing as metrics
from common.metrics.times.life_table import released_table
from common.metrics.times.survival import event_weights
from common.tasks.prognosis import INITIAL_HAZARD, encode_time, follow_up, grid_of, number_in
from common.tasks.survival_scores import Grid, ranges_among
from common.tasks.task import (
    Scores,
    UnusableLabel,
    at_least_float32,
    loss_estimate,
    loss_sums,
    owners,
    whole,
)

#: Over causes; of a cause it is `auc_CAUSE`.
AUC = "cause_auc"
_NOISED = "sums do not leave a site where counts are noised"
_UNIT = Scale(0.0, 1.0)


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


class CauseOutcomes(NamedTuple):
    """A site's patients (or images); never leave the site."""

    time: Float  # (n,)
    cause: Float  # (n,) 0: the end of follow-up
    curve: Float  # (n, causes, edges) predicted incidence
    owner: Owners  # (n,) which patient


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
            return self._noisable(found)
        smallest = rules.smallest_cell
        patients = whole(scores, rules)
        table = self._table(found, smallest)
        each = [self._areas(found, c, smallest, told=bool(table.any())) for c in self._numbers]
        errors = [self._sums(found, c, told=bool(patients > 0)) for c in self._numbers]
        return Statistics(
            patients=patients,
            cells={
                "causes": table,
                "case": np.stack([cells[0] for cells, _ in each]),
                "control": np.stack([cells[1] for cells, _ in each]),
            },
            sums={
                "case_weight": np.stack([sums[0] for _, sums in each]),
                "control_spread": np.stack([sums[1] for _, sums in each]),
                "errors": np.stack(errors),
            }
            | loss_sums(scores, rules),
        )

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return AUC, Brier score and incidence of each cause, of merged counts and sums."""
        if rules.count_noise > 0:
            return self._of_noised(statistics)
        cells, sums = statistics.cells, statistics.sums
        areas: list[Estimate] = []
        found: dict[str, Estimate] = {}
        for place, name in enumerate(self.config.causes):
            first, last, spread = sums["case_weight"][place]
            begin, end = cells["control"][place]
            case, control = (
                Ranges(first, last, spread),
                Ranges(begin, end, sums["control_spread"][place]),
            )
            cases = float(cells["case"][place][0].sum())
            areas.append(merged_auroc(case, control, cases, float(begin.sum())))
            error, square, predicted, of_predicted = sums["errors"][place]
            count = float(statistics.patients)
            found |= {
                f"brier_{name}": mean_estimate(error, square, count),
                f"observed_{name}": self._observed(cells["causes"], place + 1, 0.0),
                f"predicted_{name}": mean_estimate(predicted, of_predicted, count),
            }
        return self._named(areas, found) | {"loss": loss_estimate(statistics)}

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals; censoring weights are the whole sample's."""
        del rules
        held, patients = self._outcomes(scores), weights.shape[1]
        if patients == 0:
            return dict.fromkeys(self._names, unknown(0, "no patients"))
        time, cause, curve, _ = held
        whole, drawn = (self._drawn(held, w) for w in (np.ones((1, patients)), weights))
        areas = [of_draws(float(a[0]), b, patients) for a, b in zip(whole, drawn, strict=True)]
        together = of_draws(float(_known_mean(whole)[0]), _known_mean(drawn), patients)
        found: dict[str, Estimate] = {}
        for c, name in zip(self._numbers, self.config.causes, strict=True):
            risk = curve[:, c - 1, self._at_horizon]
            observed = partial(metrics.aalen_johansen, time, cause, c, self._grid.horizon)
            error = metrics.brier_by_patient(time, cause, c, curve[:, c - 1], self._grid.edges)
            found |= {
                f"brier_{name}": bootstrapped(partial(weighted_mean, error), weights),
                f"observed_{name}": bootstrapped(observed, weights),
                f"predicted_{name}": bootstrapped(partial(weighted_mean, risk), weights),
            }
        loss = scores.loss.double().numpy()
        return self._named(areas, found, together) | {
            "loss": bootstrapped(partial(weighted_mean, loss), weights)
        }

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the mean AUC at the horizon of each bootstrap draw, of causes that it shows."""
        del rules
        return _known_mean(self._drawn(self._outcomes(scores), weights))

    def _drawn(self, held: CauseOutcomes, weights: Float) -> Float:
        """Return the AUC of each cause and bootstrap draw, (causes, draws)."""
        time, cause, curve, _ = held
        horizon, place = self._grid.horizon, self._at_horizon
        return np.stack(
            [
                metrics.auc_by_cause(horizon, time, cause, c, curve[:, c - 1, place], weights)
                for c in self._numbers
            ]
        )

    @property
    def _names(self) -> tuple[str, ...]:
        each = ("auc", "brier", "observed", "predicted")
        return (AUC, *(f"{what}_{c}" for c in self.config.causes for what in each), "loss")

    def _named(
        self, areas: list[Estimate], found: dict[str, Estimate], together: Estimate | None = None
    ) -> dict[str, Estimate]:
        by_cause = {f"auc_{n}": a for n, a in zip(self.config.causes, areas, strict=True)}
        return {AUC: together or mean_of_labels(areas)} | by_cause | found

    # --- what may leave ----------------------------------------------------------------------

    def _table(self, found: CauseOutcomes, smallest: int) -> Float:
        """Return patients by interval and cause, of zeros where small cells would be told.

        Patients with several rows have one outcome each; images are no lives.
        """
        _, first = np.unique(found.owner, return_index=True)
        time, cause = found.time[first], found.cause[first]
        table = metrics.cause_table(time, cause, self.causes, self._grid.table)
        return released_table(table, self._grid.boundary, smallest)

    def _areas(
        self, found: CauseOutcomes, cause: int, smallest: int, *, told: bool
    ) -> tuple[tuple[Float, Float], tuple[Float, Float]]:
        """Return ranges of risk of who had the cause by the horizon, and of who had nothing.

        Where the table is told, it has both, all other causes and who was lost as large or empty
        cells, so nothing small can be subtracted; where it is not, nothing is told here either.
        """
        time, _, curve, owner = found
        case = (time <= self._grid.horizon) & (found.cause == cause) & told
        control = (time > self._grid.horizon) & told
        if min(patients_in(owner, rows) for rows in (case, control)) < smallest:
            case = control = np.zeros_like(case)
        risk = curve[:, cause - 1, self._at_horizon]
        weight = event_weights(time, (found.cause > 0).astype(np.float64)) if len(time) else time
        cases, controls = (ranges_among(risk, owner, smallest, part) for part in (case, control))
        weighted = ranges_among(risk, owner, smallest, case, weight)
        return (
            (np.stack(cases[:2]), np.stack(controls[:2])),
            (np.stack(weighted), controls.spread),
        )

    def _sums(self, found: CauseOutcomes, cause: int, *, told: bool) -> Float:
        """Return sums of errors and of predicted incidence, and of their squares, (4,)."""
        if not told:
            return np.zeros(4)
        curve = found.curve[:, cause - 1]
        error = metrics.brier_by_patient(found.time, found.cause, cause, curve, self._grid.edges)
        risk = curve[:, self._at_horizon]
        return np.array([error.sum(), (error**2).sum(), risk.sum(), (risk**2).sum()])

    def _noisable(self, found: CauseOutcomes) -> Statistics:
        """Return one patient in one cell of each row: by interval and cause, by risk of each."""
        owner = found.owner
        time, cause = (by_patient(v, owner) for v in (found.time, found.cause))
        cause = np.rint(cause)
        truth = np.where(time > self._grid.horizon, 0.0, np.nan)
        rows = []
        for c in self._numbers:
            risk = by_patient(found.curve[:, c - 1, self._at_horizon], owner)
            case = (time <= self._grid.horizon) & (cause == c)
            rows.append(noised_histogram.histogram_of(risk, np.where(case, 1.0, truth)))
        table = metrics.cause_table(time, cause, self.causes, self._grid.table)
        cells = {"causes": table.reshape(1, -1), "risk": np.stack(rows)}
        return Statistics(patients=np.zeros(()), cells=cells, sums={})

    def _of_noised(self, statistics: Statistics) -> dict[str, Estimate]:
        table = statistics.cells["causes"][0]
        patients = round(max(float(table.sum()), 0.0))
        areas: list[Estimate] = []
        found: dict[str, Estimate] = {}
        for place, name in enumerate(self.config.causes):
            areas.append(
                noised_estimate(
                    noised_histogram.parts_of(statistics.cells["risk"][place]),
                    statistics.noise,
                    auroc_of_counts,
                    lambda *held: noised_histogram.area(Histogram(*held)),
                )
            )
            found |= {
                f"brier_{name}": unknown(patients, _NOISED),
                f"observed_{name}": self._observed(table, place + 1, statistics.noise),
                f"predicted_{name}": unknown(patients, _NOISED),
            }
        return self._named(areas, found)

    def _observed(self, table: Float, cause: int, noise: float) -> Estimate:
        value = partial(
            metrics.incidence_of, causes=self.causes, of=cause, boundary=self._grid.boundary
        )
        return bounded_estimate([table.reshape(-1)], noise, value, _UNIT)

    @property
    def _numbers(self) -> range:
        return range(1, self.causes + 1)

    @property
    def _grid(self) -> Grid:
        return grid_of(self.config)

    @property
    def _at_horizon(self) -> int:
        """Place of the first edge that is no earlier than the horizon."""
        return min(int(np.searchsorted(self._grid.edges, self._grid.horizon)), self.intervals - 1)

    def _outcomes(self, scores: Scores) -> CauseOutcomes:
        found = follow_up(scores.target.double().numpy())
        curve = scores.prediction.double().numpy()
        return CauseOutcomes(
            time=found.time,
            cause=found.event,
            curve=curve.reshape(len(curve), self.causes, self.intervals),
            owner=owners(scores),
        )


def _known_mean(each: Float) -> Float:
    """Return the mean over causes, (draws,), of those that are known; nan where none is."""
    known = ~np.isnan(each)
    return ratio(np.nan_to_num(each).sum(axis=0), known.sum(axis=0).astype(np.float64))
