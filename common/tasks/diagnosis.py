"""Diagnosis: one class of two, one of several, or several labels at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.config.run_config import DiagnosisTask, Evaluation
from common.data.cell_values import expected_one_of, one_of, yes_or_no
from common.metrics.intervals import Estimate
from common.metrics.statistics import Statistics
from common.tasks.label_metrics import (
    label_draws,
    label_metrics,
    label_statistics,
    label_summary,
    row_of,
)
from common.tasks.task import PlainOutputs, Scores, UnusableLabel, at_least_float32


def zero_or_one(column: str, text: str) -> float:
    """Return 0 or 1 from a cell, or UnusableLabel that names column and value.

    A 2 is neither: whether 1 or 2 is the event is a question that the table's schema answers.
    """
    value = yes_or_no(text)
    if value is not None:
        return value
    message = f"column {column} holds {text!r}, expected 0 or 1"
    raise UnusableLabel(message)


@dataclass(frozen=True, kw_only=True)
class Diagnosis(PlainOutputs):
    """Targets are (labels,) of 0, 1 or nan (a multi-label cell that was left empty)."""

    config: DiagnosisTask

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the labels that are predicted."""
        match self.config.type:
            case "binary":
                return (str(self.config.target),)
            case "multiclass" | "ordinal":
                return self.config.classes
            case "multilabel":
                return tuple(self.config.target)

    @property
    def outputs(self) -> int:
        """One logit a label."""
        return len(self.names)

    @property
    def metric(self) -> str:
        """AUROC, or its mean over labels."""
        return "auroc" if self.outputs == 1 else "macro_auroc"

    def columns(self) -> tuple[str, ...]:
        """Return the target column or columns."""
        return self.config.outcome_columns

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return (labels,) of 0, 1 or nan."""
        if self.config.type == "multilabel":
            values = [
                zero_or_one(name, row[name]) if row[name].strip() else np.nan for name in self.names
            ]
            if np.isnan(values).all():
                message = f"columns {', '.join(self.names)} are all empty, expected 0 or 1"
                raise UnusableLabel(message)
            return np.asarray(values, np.float32)
        (column,) = self.columns()
        text = row[column].strip()
        if not text:
            expected = ", ".join(self.config.classes) or "0 or 1"
            message = f"column {column} is empty, expected {expected}"
            raise UnusableLabel(message)
        if self.config.type == "binary" and not self.config.classes:
            return np.asarray([zero_or_one(column, text)], np.float32)
        found = one_of(text, self.config.classes)
        if found is None:
            expected = expected_one_of(text, self.config.classes)
            message = f"column {column} holds {text!r}, expected {expected}"
            raise UnusableLabel(message)
        place = self.config.classes.index(found)
        if self.config.type == "binary":
            return np.asarray([place], np.float32)
        return np.asarray(np.eye(len(self.config.classes))[place], np.float32)

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return the class, or of each label 0, 1 or unknown."""
        match self.config.type:
            case "binary":
                (rows,) = self.config.outcome_tables.values()
                return (rows[int(target[0] >= 0.5)],)
            case "multiclass" | "ordinal":
                return (self.config.classes[int(np.argmax(target))],)
            case "multilabel":
                return tuple(row_of(value, "1", "0") for value in target)

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return that of somebody of the first class, without any label."""
        del size
        return self.encode(dict.fromkeys(self.columns(), (*self.config.classes, "0")[0]))

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return cross-entropy by item; a label left empty counts for nothing."""
        output = at_least_float32(output)
        if self.config.type == "multiclass":
            return -(target * F.log_softmax(output, dim=1)).sum(dim=1)
        known = ~torch.isnan(target)
        loss = F.binary_cross_entropy_with_logits(
            output, torch.nan_to_num(target), reduction="none"
        )
        return (loss * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)

    def predict(self, output: Tensor) -> Tensor:
        """Return probabilities, (items, labels)."""
        output = at_least_float32(output)
        return output.softmax(dim=1) if self.config.type == "multiclass" else output.sigmoid()

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return counts of score ranges by label and class."""
        return label_statistics(scores, rules)

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return AUROC, Brier score and calibration of merged counts."""
        return label_summary(statistics, rules, self.names)

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        return label_metrics(scores, weights, rules, self.names)

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the mean AUROC of each bootstrap draw."""
        del rules
        return label_draws(scores, weights)
