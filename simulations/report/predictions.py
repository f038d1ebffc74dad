"""predictions.csv: what each arm said of each test patient, beside what was true.

It names patients, so it belongs beside the hospitals' data and nowhere else.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from common.config.tasks import Task
from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelMap,
    LabelProbabilities,
    SurvivalCurve,
)
from common.platform.durable_files import replace_durably
from common.tasks import task_of
from common.tasks.prognosis import follow_up
from common.tasks.task import Outlining, Scores
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.report.rows import owners

_HEAD = ("arm", "seed", "fold", "hospital", "patient", "row")

Columns = Mapping[str, Sequence[float]]  # by heading: a value of each row of scores


def write_predictions(path: Path, found: Comparison) -> None:
    """Write a line for each arm, seed, fold and row of scores: a patient, or an image of one.

    `row` counts a patient's rows from 1. A probability, time or number is as the network gives it,
    without any calibration; of outlines there is the Dice of each structure that the truth holds.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head: list[str] = []
    for place, columns in _parts(found):
        if not head:
            head = list(columns)
            writer.writerow([*_HEAD, *head])
        told = zip(*(columns[name] for name in head), strict=True)
        for (arm, seed, fold, hospital, patient, row), values in zip(place, told, strict=True):
            numbers = ["" if value != value else f"{value:.7g}" for value in values]  # noqa: PLR0124 - nan
            writer.writerow([arm, seed, fold, hospital, patient, row, *numbers])
    replace_durably(path, text.getvalue().encode())


#: Arm, seed, fold, hospital, patient, row.
_Place = tuple[Arm, int, int, str, str, int]


def _parts(found: Comparison) -> Iterator[tuple[list[_Place], Columns]]:
    for (arm, seed), outcomes in found.outcomes.items():
        for fold, outcome in enumerate(outcomes):
            for cohort in found.cohorts:
                scores = outcome.test[cohort.name]
                if not len(scores.loss):  # nobody to be tested there, in no columns
                    continue
                seen: Counter[str] = Counter()
                places = []
                for patient in owners(found, cohort, seed, fold):
                    seen[patient] += 1
                    places.append((arm, seed, fold, cohort.name, patient, seen[patient]))
                yield places, columns_of(found.config.task, scores)


def columns_of(task: Task, scores: Scores) -> Columns:
    """Return what was predicted and what was true, by heading; nan where there is no such value."""
    predicted, target = scores.prediction, scores.target
    match task.predicts:
        case LabelProbabilities():
            told = _by_name("probability of ", task.labels, predicted)
            return told | _by_name("true ", task.labels, target)
        case SurvivalCurve(times=times, unit=unit):
            ends = [f"{time:g} {unit}".strip() for time in times]
            truth = follow_up(target)
            known = {"true time": _list(truth.time), "true event": _list(truth.event)}
            return _by_name("survival at ", ends, predicted) | known
        case IncidenceCurves():
            truth = follow_up(target)
            known = {"true time": _list(truth.time), "true cause": _list(truth.event)}
            return _by_name("probability of ", task.labels, predicted) | known
        case LabelMap(structures=structures):
            outlining = task_of(task)
            assert isinstance(outlining, Outlining)  # noqa: S101 - a label map is outlines
            dice = torch.from_numpy(outlining.dice(scores))
            return _by_name("dice of ", [*structures, "all"], dice)
        case BoundedNumber(unit=unit):
            told = _by_name("predicted ", [unit], predicted)
            return told | _by_name("true ", [unit], target)


def _by_name(before: str, names: Sequence[str], values: Tensor) -> dict[str, Sequence[float]]:
    columns = zip(names, values.unbind(1), strict=True)
    return {f"{before}{name}": _list(column) for name, column in columns}


def _list(values: Tensor) -> Sequence[float]:
    return [float(value) for value in values.tolist()]
