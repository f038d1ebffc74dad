"""Confounders in the report: columns that could give the outcome away."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from client.cohort.site_cohort import SiteCohort
from common.config.tasks.forms import BoundedNumber, IncidenceCurves, LabelMap, SurvivalCurve
from common.data.kept_items import in_memory
from common.metrics.auroc_interval import auroc
from common.metrics.intervals import Float
from common.metrics.times.survival import concordance
from common.tasks import task_of
from common.tasks.prognosis import follow_up
from common.tasks.task import Scores
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import concatenated
from simulations.report.rows import by_item, main_arm, owners, rows

#: What a patient has whose items differ in the column.
MIXED = "several values"


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How well one value of the column alone tells the outcome."""

    value: str  # of the column
    outcome: str  # whose label
    patients: int  # with this value in any item
    area: float  # AUROC or concordance of "has this value", in its better direction


@dataclass(frozen=True, kw_only=True)
class Within:
    """The model's metric among patients with the same value."""

    value: str  # of the column
    rows: int  # test patients or images, first seed
    metric: float  # mean over seeds; nan where it cannot be had


@dataclass(frozen=True, kw_only=True)
class Confounder:
    """What the report says about `cohort.confounder`."""

    column: str
    measure: str  # AUROC or concordance
    separations: tuple[Separation, ...]  # best first; empty for outlines
    within: tuple[Within, ...]
    arm: Arm  # whose metric `within` has

    @property
    def sentence(self) -> str:
        """The confound, named plainly."""
        known = [s for s in self.separations if not np.isnan(s.area)]
        if not known:
            return f"How well {self.column} alone tells the outcome cannot be said for this task."
        best = known[0]
        return (
            f"{self.column} alone separates the outcome with {self.measure} {best.area:.2f} "
            f"(value {best.value or 'empty'}, outcome {best.outcome}), over all patients of all "
            "hospitals. A model can reach this without looking at anything else."
        )


def confounder(found: Comparison) -> Confounder | None:
    """Return what is known of the confounder; None when the configuration names none."""
    column = found.config.cohort.confounder
    if column is None:
        return None
    survival = _is_survival(found)
    return Confounder(
        column=column,
        measure="concordance" if survival else "AUROC",
        separations=_separations(found),
        within=_within(found, main_arm(found)),
        arm=main_arm(found),
    )


def _is_survival(found: Comparison) -> bool:
    return isinstance(found.config.task.predicts, SurvivalCurve)


def values_by_patient(cohort: SiteCohort) -> dict[str, list[str]]:
    """Return the column's values of each patient's items."""
    values: dict[str, list[str]] = defaultdict(list)
    for place, value in zip(cohort.items.patient.tolist(), cohort.confounder, strict=True):
        values[cohort.items.pseudonyms[place]].append(value)
    return dict(values)


# --- the column alone --------------------------------------------------------------------


def _separations(found: Comparison) -> tuple[Separation, ...]:
    form = found.config.task.predicts
    if isinstance(form, LabelMap | BoundedNumber | IncidenceCurves):
        return ()
    held = [v for c in found.cohorts for v in values_by_patient(c).values()]
    target = np.concatenate([_targets(c) for c in found.cohorts])
    names = ("event",) if _is_survival(found) else found.config.task.labels
    separations = []
    for value in sorted({v for several in held for v in several}):
        has = np.array([several.count(value) / len(several) for several in held])
        for column, name in enumerate(names):
            area = (
                _survival_area(has, target)
                if _is_survival(found)
                else _area(has, target[:, column])
            )
            separations.append(
                Separation(value=value, outcome=name, patients=int((has > 0).sum()), area=area)
            )
    return tuple(sorted(separations, key=lambda s: -np.nan_to_num(s.area)))


def _targets(cohort: SiteCohort) -> Float:
    """Return each patient's target: the mean of their items' (they are equal, or scored alone)."""
    target = in_memory(cohort.items.target).double().numpy()
    owner = cohort.items.patient.numpy()
    return np.stack([target[owner == p].mean(axis=0) for p in range(len(cohort.items))])


def _area(score: Float, truth: Float) -> float:
    known = ~np.isnan(truth)
    found = float(auroc(score[known], np.round(truth[known]), np.ones((1, int(known.sum()))))[0])
    return max(found, 1 - found)


def _survival_area(score: Float, target: Float) -> float:
    _, _, time, event = follow_up(target)
    found = float(concordance(time, event, score, np.ones((1, len(time))))[0])
    return max(found, 1 - found)


# --- the model within each value ---------------------------------------------------------


def _within(found: Comparison, arm: Arm) -> tuple[Within, ...]:
    by_seed = [_rows_by_value(found, arm, seed) for seed in found.seeds]
    values = sorted({value for several in by_seed for value in several})
    return tuple(
        Within(
            value=value,
            rows=len(by_seed[0][value].loss) if value in by_seed[0] else 0,
            metric=_mean([_metric(found, s[value]) for s in by_seed if value in s]),
        )
        for value in values
    )


def _rows_by_value(found: Comparison, arm: Arm, seed: int) -> dict[str, Scores]:
    """Return test scores of all hospitals and folds, by value of the column."""
    parts: dict[str, list[Scores]] = defaultdict(list)
    for fold, outcome in enumerate(found.outcomes[arm, seed]):
        for cohort in found.cohorts:
            names = _row_values(found, cohort, seed, fold)
            for value in sorted(set(names)):
                chosen = [row for row, name in enumerate(names) if name == value]
                parts[value].append(rows(outcome.test[cohort.name], chosen))
    return {value: concatenated(several) for value, several in parts.items()}


def _row_values(found: Comparison, cohort: SiteCohort, seed: int, fold: int) -> list[str]:
    values = values_by_patient(cohort)
    people = owners(found, cohort, seed, fold)
    if not by_item(found):
        return [v[0] if len(set(v := values[name])) == 1 else MIXED for name in people]
    # A patient's items stand together and keep their order in every split.
    taken: dict[str, int] = defaultdict(int)
    names = []
    for person in people:
        names.append(values[person][taken[person]])
        taken[person] += 1
    return names


def _metric(found: Comparison, scores: Scores) -> float:
    task = task_of(found.config.task)
    whole = np.ones((1, len(scores.loss)))
    return float(task.draws(scores, whole, found.config.evaluation)[0])


def _mean(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")
