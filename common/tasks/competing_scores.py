"""Metrics of competing risks: exact where scores are, by counts elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

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
from common.tasks.survival_scores import NOISED, Grid, ranges_among

#: Over causes; of a cause it is `auc_CAUSE`.
AUC = "cause_auc"
_UNIT = Scale(0.0, 1.0)


class CauseOutcomes(NamedTuple):
    """A site's patients (or images); never leave the site."""

    time: Float  # (n,)
    cause: Float  # (n,) 0: the end of follow-up
    curve: Float  # (n, causes, edges) predicted incidence
    owner: Owners  # (n,) which patient


@dataclass(frozen=True, kw_only=True)
class CauseScores:
    """What is measured of causes, at public times."""

    names: tuple[str, ...]  # of the causes
    grid: Grid

    def released(self, found: CauseOutcomes, smallest: int, patients: Float) -> Statistics:
        """Return a table by interval and cause, ranges of risk at the horizon, sums of errors."""
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
            },
        )

    def of_released(self, statistics: Statistics) -> dict[str, Estimate]:
        """Return every metric of merged counts and sums."""
        cells, sums = statistics.cells, statistics.sums
        areas: list[Estimate] = []
        found: dict[str, Estimate] = {}
        for place, name in enumerate(self.names):
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
        return self._named(areas, found)

    def exact(self, held: CauseOutcomes, weights: Float) -> dict[str, Estimate]:
        """Return every metric from the scores, bootstrapped."""
        patients = weights.shape[1]
        if patients == 0:
            return dict.fromkeys(self._metrics, unknown(0, "no patients"))
        time, cause, curve, _ = held
        whole, drawn = (self._drawn(held, w) for w in (np.ones((1, patients)), weights))
        areas = [of_draws(float(a[0]), b, patients) for a, b in zip(whole, drawn, strict=True)]
        together = of_draws(float(_known_mean(whole)[0]), _known_mean(drawn), patients)
        found: dict[str, Estimate] = {}
        for c, name in zip(self._numbers, self.names, strict=True):
            risk = curve[:, c - 1, self._at_horizon]
            observed = partial(metrics.aalen_johansen, time, cause, c, self.grid.horizon)
            error = metrics.brier_by_patient(time, cause, c, curve[:, c - 1], self.grid.edges)
            found |= {
                f"brier_{name}": bootstrapped(partial(weighted_mean, error), weights),
                f"observed_{name}": bootstrapped(observed, weights),
                f"predicted_{name}": bootstrapped(partial(weighted_mean, risk), weights),
            }
        return self._named(areas, found, together)

    def mean_area(self, held: CauseOutcomes, weights: Float) -> Float:
        """Return the mean AUC over causes of each draw, (draws,)."""
        return _known_mean(self._drawn(held, weights))

    def _drawn(self, held: CauseOutcomes, weights: Float) -> Float:
        """Return the AUC of each cause and bootstrap draw, (causes, draws)."""
        time, cause, curve, _ = held
        horizon, place = self.grid.horizon, self._at_horizon
        return np.stack(
            [
                metrics.auc_by_cause(horizon, time, cause, c, curve[:, c - 1, place], weights)
                for c in self._numbers
            ]
        )

    @property
    def _metrics(self) -> tuple[str, ...]:
        each = ("auc", "brier", "observed", "predicted")
        return (AUC, *(f"{what}_{c}" for c in self.names for what in each))

    def _named(
        self, areas: list[Estimate], found: dict[str, Estimate], together: Estimate | None = None
    ) -> dict[str, Estimate]:
        by_cause = {f"auc_{n}": a for n, a in zip(self.names, areas, strict=True)}
        return {AUC: together or mean_of_labels(areas)} | by_cause | found

    # --- what may leave ----------------------------------------------------------------------

    def _table(self, found: CauseOutcomes, smallest: int) -> Float:
        """Return patients by interval and cause, of zeros where small cells would be told.

        Patients with several rows have one outcome each; images are no lives.
        """
        _, first = np.unique(found.owner, return_index=True)
        time, cause = found.time[first], found.cause[first]
        table = metrics.cause_table(time, cause, self.causes, self.grid.table)
        return released_table(table, self.grid.boundary, smallest)

    def _areas(
        self, found: CauseOutcomes, cause: int, smallest: int, *, told: bool
    ) -> tuple[tuple[Float, Float], tuple[Float, Float]]:
        """Return ranges of risk of who had the cause by the horizon, and of who had nothing.

        Where the table is told, it has both, all other causes and who was lost as large or empty
        cells, so nothing small can be subtracted; where it is not, nothing is told here either.
        """
        time, _, curve, owner = found
        case = (time <= self.grid.horizon) & (found.cause == cause) & told
        control = (time > self.grid.horizon) & told
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
        error = metrics.brier_by_patient(found.time, found.cause, cause, curve, self.grid.edges)
        risk = curve[:, self._at_horizon]
        return np.array([error.sum(), (error**2).sum(), risk.sum(), (risk**2).sum()])

    def noisable(self, found: CauseOutcomes) -> Statistics:
        """Return one patient in one cell of each row: by interval and cause, by risk of each."""
        owner = found.owner
        time, cause = (by_patient(v, owner) for v in (found.time, found.cause))
        cause = np.rint(cause)
        truth = np.where(time > self.grid.horizon, 0.0, np.nan)
        rows = []
        for c in self._numbers:
            risk = by_patient(found.curve[:, c - 1, self._at_horizon], owner)
            case = (time <= self.grid.horizon) & (cause == c)
            rows.append(noised_histogram.histogram_of(risk, np.where(case, 1.0, truth)))
        table = metrics.cause_table(time, cause, self.causes, self.grid.table)
        cells = {"causes": table.reshape(1, -1), "risk": np.stack(rows)}
        return Statistics(patients=np.zeros(()), cells=cells, sums={})

    def of_noised(self, statistics: Statistics) -> dict[str, Estimate]:
        """Return every metric of noised cells; those that they do not show say so."""
        table = statistics.cells["causes"][0]
        patients = round(max(float(table.sum()), 0.0))
        areas: list[Estimate] = []
        found: dict[str, Estimate] = {}
        for place, name in enumerate(self.names):
            areas.append(
                noised_estimate(
                    noised_histogram.parts_of(statistics.cells["risk"][place]),
                    statistics.noise,
                    auroc_of_counts,
                    lambda *held: noised_histogram.area(Histogram(*held)),
                )
            )
            found |= {
                f"brier_{name}": unknown(patients, NOISED),
                f"observed_{name}": self._observed(table, place + 1, statistics.noise),
                f"predicted_{name}": unknown(patients, NOISED),
            }
        return self._named(areas, found)

    def _observed(self, table: Float, cause: int, noise: float) -> Estimate:
        value = partial(
            metrics.incidence_of, causes=self.causes, of=cause, boundary=self.grid.boundary
        )
        return bounded_estimate([table.reshape(-1)], noise, value, _UNIT)

    @property
    def _numbers(self) -> range:
        return range(1, self.causes + 1)

    @property
    def causes(self) -> int:
        """Number of causes."""
        return len(self.names)

    @property
    def _at_horizon(self) -> int:
        """Place of the first edge that is no earlier than the horizon."""
        place = int(np.searchsorted(self.grid.edges, self.grid.horizon))
        return min(place, len(self.grid.edges) - 1)


def _known_mean(each: Float) -> Float:
    """Return the mean over causes, (draws,), of those that are known; nan where none is."""
    known = ~np.isnan(each)
    return ratio(np.nan_to_num(each).sum(axis=0), known.sum(axis=0).astype(np.float64))
