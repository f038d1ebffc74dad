"""Evidence on the shared model of a comparison, for its model card.

Everything is passed through what evaluation between hospitals releases (`Task.statistics`), so a
card from a simulation of real cohorts tells no more than one from a federation would.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import simulated_key
from common.bundle.evidence import (
    Evidence,
    SiteData,
    Subgroup,
    calibration_of,
    confusion_of,
    survival_of,
)
from common.config.run_config import CategoryColumn, Evaluation, NumberColumn, Table
from common.metrics.small_cells import releasable
from common.tasks import task_of
from common.tasks.summary import summarised
from common.tasks.task import Scores
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import concatenated
from simulations.report.confounder import MIXED, values_by_patient
from simulations.report.rows import owners

#: Lower ends of age bands, years.
_BANDS = ((0.0, "under 40"), (40.0, "40 to 59"), (60.0, "60 to 74"), (75.0, "75 and over"))
_MISSING = "missing"
#: By pseudonym: what a patient has in a column.
_Values = Mapping[str, str]


def evidence_of(found: Comparison, arm: Arm, seed: int) -> Evidence:
    """Return what may be told of an arm's test patients beside its metrics."""
    rules = _rules(found)
    subgroups = tuple(_subgroups(found, arm, seed))
    scores = _told(found, arm, seed, None)
    statistics = None if scores is None else task_of(found.config.task).statistics(scores, rules)
    config = found.config.model_copy(update={"evaluation": rules})
    return Evidence(
        data={c.name: _data(found, c, seed, rules.smallest_cell) for c in found.cohorts},
        subgroups=subgroups,
        no_subgroups="The configuration names no sex, age or confounder: not recorded.",
        calibration=() if statistics is None else calibration_of(statistics, config.task),
        confusion=() if statistics is None else confusion_of(statistics, config),
        survival={} if statistics is None else survival_of(statistics, config),
        no_calibration="For this task, or with so few test patients, none can be told.",
    )


def _rules(found: Comparison) -> Evaluation:
    # Noise is for what leaves a hospital; a simulation's metrics have none either.
    return found.config.evaluation.model_copy(update={"count_noise": 0.0})


def _data(found: Comparison, cohort: SiteCohort, seed: int, smallest: int) -> SiteData:
    split = found.config.cohort.split
    folds = [cohort.split(split, simulated_key(seed), fold) for fold in range(split.folds or 1)]
    counts = len(folds[0]["train"]), sum(len(parts["test"]) for parts in folds)
    training, test = (count if count >= smallest else None for count in counts)
    return SiteData(training_patients=training, test_patients=test)


def _subgroups(found: Comparison, arm: Arm, seed: int) -> Iterator[Subgroup]:
    """Yield the subgroups of every column that has some; small ones without their numbers."""
    rules, task = _rules(found), task_of(found.config.task)
    config = found.config.model_copy(update={"evaluation": rules})
    for column, values in _columns(found).items():
        counts = Counter(_of_tested(found, seed, values))
        names = sorted(counts, key=_rank)
        told = releasable(np.array([counts[n] for n in names], np.float64), rules.smallest_cell)
        for name, shown in zip(names, told, strict=True):
            scores = _told(found, arm, seed, {p for p, v in values.items() if v == name})
            if not shown or scores is None:
                yield Subgroup(column=column, value=name, patients=None, metrics={})
                continue
            yield Subgroup(
                column=column,
                value=name,
                patients=counts[name],
                metrics=summarised(config, task.statistics(scores, rules)),
            )


def _of_tested(found: Comparison, seed: int, values: _Values) -> Iterator[str]:
    """Yield the value of every test patient once."""
    for cohort in found.cohorts:
        tested = {
            name
            for fold in range(found.config.cohort.split.folds or 1)
            for name in owners(found, cohort, seed, fold)
        }
        yield from (values[_key(cohort, name)] for name in sorted(tested))


def _told(found: Comparison, arm: Arm, seed: int, keys: set[str] | None) -> Scores | None:
    """Return test scores of these patients (None: all) of all hospitals; None for nobody."""
    parts = []
    for fold, outcome in enumerate(found.outcomes[arm, seed]):
        for cohort in found.cohorts:
            people = [_key(cohort, name) for name in owners(found, cohort, seed, fold)]
            chosen = [n for n, key in enumerate(people) if keys is None or key in keys]
            # An image counts for its patient, whatever the scores are of.
            number = {key: place for place, key in enumerate(dict.fromkeys(people))}
            scores, places = outcome.test[cohort.name], torch.tensor(chosen, dtype=torch.int64)
            parts.append(
                Scores(
                    prediction=scores.prediction[places],
                    target=scores.target[places],
                    loss=scores.loss[places],
                    owner=torch.tensor([number[people[n]] for n in chosen], dtype=torch.int64),
                )
            )
    together = concatenated(parts)
    return together if len(together.loss) else None


def _key(cohort: SiteCohort, pseudonym: str) -> str:
    return f"{cohort.name} {pseudonym}"


# --- the columns ---------------------------------------------------------------------------


def _columns(found: Comparison) -> dict[str, _Values]:
    """Return the columns that subgroups are made of: sex and its like, age, the confounder."""
    columns: dict[str, dict[str, str]] = defaultdict(dict)
    table, confounder = found.config.cohort.table, found.config.cohort.confounder
    for cohort in found.cohorts:
        if table is not None:
            for pseudonym, row in _first_rows(cohort).items():
                for column, value in _decoded(row, table):
                    columns[column][_key(cohort, pseudonym)] = value
        if confounder is not None:
            for pseudonym, several in values_by_patient(cohort).items():
                same = several[0] if len(set(several)) == 1 else MIXED
                columns[confounder][_key(cohort, pseudonym)] = same
    return dict(columns)


def _first_rows(cohort: SiteCohort) -> dict[str, list[float]]:
    """Return the table's row of each patient's first item."""
    found: dict[str, list[float]] = {}
    for place, row in zip(cohort.items.patient.tolist(), cohort.items.table.tolist(), strict=True):
        found.setdefault(cohort.items.pseudonyms[place], row)
    return found


def _decoded(row: list[float], table: Table) -> Iterator[tuple[str, str]]:
    """Yield column and value of the categories and of an age, as they were before scaling."""
    first = len(table.numbers) + sum(len(c.values) for c in table.categories)
    missing = row[first:]
    for place, number in enumerate(table.numbers):
        if _is_age(number):
            years = row[place] * number.scale + number.center
            yield number.column, _MISSING if missing[place] else _band(years)
    start = len(table.numbers)
    for place, category in enumerate(table.categories, len(table.numbers)):
        held = row[start : start + len(category.values)]
        start += len(category.values)
        yield category.column, _MISSING if missing[place] else _value(held, category)


def _is_age(number: NumberColumn) -> bool:
    words = number.column.lower().replace("_", " ").split()
    return number.transform == "none" and bool({"age", "patientage"} & set(words))


def _band(years: float) -> str:
    return next(name for low, name in reversed(_BANDS) if years + 1e-3 >= low or low == 0)


def _rank(value: str) -> tuple[int, str]:
    """Return what puts bands of age in their order, and other values in the alphabet's."""
    bands = [name for _, name in _BANDS]
    return (bands.index(value) if value in bands else len(bands), value)


def _value(held: list[float], category: CategoryColumn) -> str:
    return category.values[max(range(len(held)), key=held.__getitem__)]
