"""A task of an extension: classes made of columns by its code, measured as a diagnosis is.

Guarantee: what leaves a site is what a diagnosis of several classes releases, and no number of the
extension's own. A row's class depends on its own columns alone (common/extensions/tasks.py).

Public: ExtensionClasses, encoding_task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.config.run_config import DiagnosisTask, Evaluation, RunConfig
from common.config.tasks.extension_task import ExtensionTask, OutcomeColumn
from common.data.cell_values import expected_one_of, number_of, one_of
from common.extensions.tasks import class_of
from common.metrics.intervals import Estimate
from common.metrics.statistics import Statistics
from common.tasks.diagnosis import Diagnosis
from common.tasks.task import PlainOutputs, Scores, Task, UnusableLabel


@dataclass(frozen=True, kw_only=True)
class ExtensionClasses(PlainOutputs):
    """Targets are (classes,) of 0 and one 1; all but their making is that of a diagnosis."""

    config: ExtensionTask
    place: Callable[[Tensor], float] | None = None  # a row's values to its class; see encoding_task

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the same classes."""
        classes = self.config.classes
        config = DiagnosisTask(kind="diagnosis", type="multiclass", target="class", classes=classes)
        return Diagnosis(config=config)

    @property
    def outputs(self) -> int:
        """One logit a class."""
        return len(self.config.classes)

    @property
    def metric(self) -> str:
        """Mean AUROC over classes."""
        return self.diagnosis.metric

    def columns(self) -> tuple[str, ...]:
        """Return the columns that classes are made of."""
        return self.config.outcome_columns

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return (classes,) with a 1 at the row's class; UnusableLabel where it has none."""
        if self.place is None:
            message = f"{self.config.name} makes its classes by code that was not loaded here."
            raise AssertionError(message)
        values = [_value(column, row[column.column].strip()) for column in self.config.columns]
        found = self.place(torch.tensor(values, dtype=torch.float64))
        if found not in range(self.outputs):  # nan is in no range either
            what = "no class" if math.isnan(found) else f"class {found:g}"
            rest = "" if math.isnan(found) else f", expected 0 to {self.outputs - 1}"
            message = f"{self.config.name} makes {what} of {', '.join(self.columns())}{rest}"
            raise UnusableLabel(message)
        return np.asarray(np.eye(self.outputs)[int(found)], np.float32)

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return the class."""
        return self.diagnosis.outcome_rows(target)

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody of the first class."""
        return self.diagnosis.blank_target(size)

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy by item: what is measured; training takes the extension's loss."""
        return self.diagnosis.item_loss(output, target)

    def predict(self, output: Tensor) -> Tensor:
        """Return probabilities, (items, classes)."""
        return self.diagnosis.predict(output)

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return counts of score ranges by class, as a diagnosis of several classes does."""
        return self.diagnosis.statistics(scores, rules)

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return AUROC, Brier score and calibration of merged counts."""
        return self.diagnosis.summarise(statistics, rules)

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        return self.diagnosis.exact(scores, weights, rules)

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the mean AUROC of each bootstrap draw."""
        return self.diagnosis.draws(scores, weights, rules)


def _value(column: OutcomeColumn, text: str) -> float:
    """Return a cell as the extension is given it, or UnusableLabel that names column and value."""
    if not column.values:
        number = number_of(text)
        if number is None:
            message = f"column {column.column} holds {text!r}, expected a number"
            raise UnusableLabel(message)
        return number
    found = one_of(text, column.values)
    if found is None:
        expected = expected_one_of(text, column.values)
        message = f"column {column.column} holds {text!r}, expected {expected}"
        raise UnusableLabel(message)
    return float(column.values.index(found))


def encoding_task(config: RunConfig, task: Task) -> Task:
    """Return the task that makes targets of rows; ExtensionRefused unless it keeps the contract."""
    if not isinstance(task, ExtensionClasses):
        return task
    return replace(task, place=class_of(config.extensions, task.config))
