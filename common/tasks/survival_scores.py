"""Metrics of survival predictions: exact where scores are, by counts elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from common.config.run_config import Evaluation
from common.metrics.auroc_interval import merged_auroc
from common.metrics.intervals import (
    Estimate,
    Float,
    Owners,
    bootstrapped,
    mean_estimate,
    unknown,
    weighted_mean,
)
from common.metrics.noised import Scale, bounded_estimate
from common.metrics.noised_histogram import by_patient
from common.metrics.score_ranges import BINS, Ranges, ranges_of
from common.metrics.small_cells import Bool, counted, patients_in
from common.metrics.statistics import Statistics
from common.metrics.times import survival as metrics
from common.metrics.times.competing import incidence_of
from common.metrics.times.life_table import (
    RISK_BINS,
    life_table,
    merged_survival,
    released_table,
    risk_table,
    table_metrics,
)
from common.tasks.task import Scores, loss_estimate, loss_sums, owners, whole

_UNIT = Scale(0.0, 1.0)
NOISED = "sums do not leave a site where counts are noised"


class Outcomes(NamedTuple):
    """A site's patients; never leave the site."""

    time: Float  # (n,)
    event: Float  # (n,) 1 where it was seen
    risk: Float  # (n,) 0 to 1
    curve: Float  # (n, edges) predicted survival
    loss: Float  # (n,)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Public times."""

    edges: Float  # (edges,) right ends of the intervals
    horizon: float  # where the time-dependent AUC is taken

    @property
    def table(self) -> Float:
        """Edges of the life table: the horizon is one of them."""
        return np.unique(np.r_[self.edges, self.horizon])

    @property
    def boundary(self) -> int:
        """Return the first interval of the life table after the horizon."""
        return int(np.searchsorted(self.table, self.horizon)) + 1

    @property
    def auc(self) -> str:
        """Name of the AUC."""
        return f"auc_at_{self.horizon:g}"


def exact(found: Outcomes, grid: Grid, weights: Float) -> dict[str, Estimate]:
    """Return all metrics with bootstrap intervals; censoring weights are the whole sample's."""
    time, event, risk, curve, loss = found
    if len(time) == 0:
        return dict.fromkeys(_names(grid), unknown(0, "no patients"))
    error = metrics.brier_by_patient(time, event, curve, grid.edges)
    return {
        "concordance": bootstrapped(partial(metrics.concordance, time, event, risk), weights),
        "integrated_brier": bootstrapped(partial(weighted_mean, error), weights),
        grid.auc: bootstrapped(partial(metrics.auc_at, grid.horizon, time, event, risk), weights),
        "loss": bootstrapped(partial(weighted_mean, loss), weights),
    }


def _names(grid: Grid) -> tuple[str, ...]:
    return ("concordance", "integrated_brier", grid.auc, "loss")


# --- what may leave ----------------------------------------------------------------------


def released(found: Outcomes, scores: Scores, grid: Grid, rules: Evaluation) -> Statistics:
    """Return counts and sums that add up; see `Task.statistics`."""
    owner = owners(scores)
    if rules.count_noise > 0:
        return _noisable(found, owner, grid)
    time, event, risk, curve, _ = found
    smallest = rules.smallest_cell
    patients = whole(scores, rules)
    # One event's pairs would be the rank of one patient.
    ranked = patients > 0 and patients_in(owner, event == 1) >= smallest
    error = np.zeros(1)
    if patients > 0:
        error = metrics.brier_by_patient(time, event, curve, grid.edges)
    table = _table(found, owner, grid, smallest)
    cells, areas = _areas(found, owner, grid, smallest, subtractable=not table.any())
    return Statistics(
        patients=patients,
        cells=cells | {"life_table": table},
        sums=areas
        | loss_sums(scores, rules)
        | {
            "concordance": metrics.concordance_sums(time, event, risk) if ranked else np.zeros(5),
            "brier": np.array([error.sum(), (error**2).sum()]),
        },
    )


def _table(found: Outcomes, owner: Owners, grid: Grid, smallest: int) -> Float:
    """Return the life table, of zeros where it cannot be told.

    Patients with several rows have one outcome each; images are no lives.
    """
    _, first = np.unique(owner, return_index=True)
    table = life_table(found.time[first], found.event[first], grid.table)
    return released_table(table, grid.boundary, smallest)


def _areas(
    found: Outcomes, owner: Owners, grid: Grid, smallest: int, *, subtractable: bool
) -> tuple[dict[str, Float], dict[str, Float]]:
    """Return ranges of risk of cases and controls at the horizon: counts, and weights.

    Who was lost before the horizon is neither. Those may be few where there is no life table
    (`subtractable`); then some others are left out, so that subtraction does not tell.
    """
    time, event, risk, _, _ = found
    case = (time <= grid.horizon) & (event == 1)
    known = case | (time > grid.horizon)
    if subtractable:
        known = counted(known, owner, risk, smallest)
    case, control = case & known, known & ~case
    if not _told(case, known, owner, smallest):
        case, control = np.zeros_like(case), np.zeros_like(case)
    weight = metrics.event_weights(time, event) if len(time) else time
    cases, controls = (ranges_among(risk, owner, smallest, part) for part in (case, control))
    weighted = ranges_among(risk, owner, smallest, case, weight)
    return (
        {"case": np.stack(cases[:2]), "control": np.stack(controls[:2])},
        {"case_weight": np.stack(weighted), "control_spread": controls.spread},
    )


def _told(case: Bool, known: Bool, owner: Owners, smallest: int) -> bool:
    return all(patients_in(owner, rows) >= smallest for rows in (case, known & ~case))


def ranges_among(
    risk: Float, owner: Owners, smallest: int, rows: Bool, weight: Float | None = None
) -> Ranges:
    """Return ranges of risk of these rows, of zeros where there are none."""
    if not rows.any():
        return Ranges(np.zeros(BINS), np.zeros(BINS), np.zeros(BINS))
    held, _ = ranges_of(risk[rows], owner[rows], smallest, None if weight is None else weight[rows])
    return held


def _noisable(found: Outcomes, owner: Owners, grid: Grid) -> Statistics:
    """Return one patient in one cell of risk, interval and event; no sums."""
    time, event, risk = (by_patient(v, owner) for v in (found.time, found.event, found.risk))
    cells = risk_table(time, event, risk, grid.table)
    return Statistics(patients=np.zeros(()), cells={"risk_table": cells}, sums={})


# --- what was merged ---------------------------------------------------------------------


def summarised(statistics: Statistics, grid: Grid, rules: Evaluation) -> dict[str, Estimate]:
    """Return the metrics of merged statistics."""
    patients = round(float(statistics.patients))
    if rules.count_noise > 0:
        concordance, area = table_metrics(
            statistics.cells["risk_table"], statistics.noise, len(grid.table), grid.boundary
        )
        return {
            "concordance": concordance,
            "integrated_brier": unknown(max(patients, 0), NOISED),
            grid.auc: area,
        }
    cells, sums = statistics.cells, statistics.sums
    first, last, spread = sums["case_weight"]
    begin, end = cells["control"]
    case, control = Ranges(first, last, spread), Ranges(begin, end, sums["control_spread"])
    total, squared = sums["brier"]
    cases, controls = float(cells["case"][0].sum()), float(cells["control"][0].sum())
    return {
        "concordance": metrics.merged_concordance(sums["concordance"], patients),
        "integrated_brier": mean_estimate(total, squared, float(statistics.patients)),
        grid.auc: merged_auroc(case, control, cases, controls),
        "loss": loss_estimate(statistics),
    }


def observed_survival(
    statistics: Statistics, grid: Grid, rules: Evaluation
) -> dict[float, Estimate]:
    """Return the merged Kaplan-Meier curve at the public times, of sites that could tell it.

    Of noised counts with the noise in its intervals.
    """
    times = grid.table.tolist()
    if rules.count_noise == 0:
        return dict(zip(times, merged_survival(statistics.cells["life_table"]), strict=True))
    table = statistics.cells["risk_table"].reshape(RISK_BINS, -1).sum(axis=0)
    return {
        time: bounded_estimate(
            [table], RISK_BINS * statistics.noise, partial(_survival_at, place + 1), _UNIT
        )
        for place, time in enumerate(times)
    }


def _survival_at(boundary: int, table: Float) -> Float:
    return 1 - incidence_of(table, causes=1, of=1, boundary=boundary)
