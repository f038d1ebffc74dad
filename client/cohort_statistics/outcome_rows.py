"""Row of each patient in the tables of outcomes, by its first item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from client.cohort.site_cohort import SiteCohort
from common.config.run_config import DiagnosisTask, PrognosisTask, RunConfig
from common.messages.cohort_statistics import UNKNOWN, bin_of, layout_of

Rows = Mapping[str, tuple[str, ...]]


def outcomes_of(cohort: SiteCohort, config: RunConfig) -> dict[str, Rows]:
    """Return each patient's row in the tables of outcomes, by their first item."""
    items, task = cohort.items, config.task
    first = np.unique(items.patient.numpy(), return_index=True)[1]
    values: NDArray[np.float32] = items.target.numpy()[first]
    layout = layout_of(config)

    def rows(name: str, chosen: Iterable[str]) -> dict[str, Rows]:
        held: dict[str, list[str]] = {row: [] for row in layout[name]}
        for patient, row in zip(items.pseudonyms, chosen, strict=True):
            held[row].append(patient)
        return {name: {row: tuple(people) for row, people in held.items()}}

    match task:
        case DiagnosisTask(type="multilabel"):
            found: dict[str, Rows] = {}
            for place, label in enumerate(task.target):
                found |= rows(f"label {label}", [_binary(v, "1", "0") for v in values[:, place]])
            return found
        case DiagnosisTask(type="multiclass"):
            classes = [task.classes[int(np.argmax(row))] for row in values]
            return rows(f"class of {task.target}", classes)
        case DiagnosisTask():
            low, high = task.classes or ("0", "1")
            return rows(f"class of {task.target}", [high if v[0] >= 0.5 else low for v in values])
        case PrognosisTask(outcome="survival"):
            times = [bin_of(float(row[-2]), (0.0, *task.intervals)) for row in values]
            events = ["event" if row[-1] >= 0.5 else "no event" for row in values]
            told = rows(f"outcome {task.event}", events)
            return told | rows(f"follow-up ({task.unit})", times)
        case PrognosisTask():
            seen = [_binary(row[0], "event", "no event") for row in values]
            return rows(f"outcome {task.event}", seen)
        case _:
            return {}


def _binary(value: float, yes: str, no: str) -> str:
    if np.isnan(value):
        return UNKNOWN
    return yes if value >= 0.5 else no
