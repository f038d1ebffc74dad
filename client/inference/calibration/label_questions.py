"""A model's labels as questions with one right answer each, for prediction sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.config.run_config import DiagnosisTask, PrognosisTask, RunConfig

Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelQuestion:
    """Classes of which exactly one is true of a patient."""

    classes: tuple[str, ...]


def questions(config: RunConfig) -> tuple[LabelQuestion, ...]:
    """Return the run's questions: none for outlines and for survival over time."""
    names = config.task.labels
    match config.task:
        case DiagnosisTask(type="multiclass", classes=classes):
            return (LabelQuestion(classes=classes),)
        case DiagnosisTask(type="binary", classes=(negative, positive)):
            return (LabelQuestion(classes=(negative, positive)),)
        case DiagnosisTask() | PrognosisTask(outcome="fixed_horizon"):
            return tuple(LabelQuestion(classes=(f"not {name}", name)) for name in names)
        case _:
            return ()


def class_probabilities(config: RunConfig, prediction: Float) -> list[Float]:
    """Return (patients, classes) of each question, from (patients, labels)."""
    asked = questions(config)
    if len(asked) == 1 and len(asked[0].classes) == prediction.shape[1]:
        return [prediction]
    return [np.stack([1 - column, column], axis=1) for column in prediction.T[: len(asked)]]


def true_classes(config: RunConfig, target: Float) -> list[NDArray[np.int64]]:
    """Return each question's right class, (patients,); -1 where the site does not know it."""
    asked = questions(config)
    if len(asked) == 1 and len(asked[0].classes) == target.shape[1]:
        return [target.argmax(axis=1)]
    known = [(~np.isnan(column), column) for column in target.T[: len(asked)]]
    return [np.where(here, np.nan_to_num(column), -1).astype(np.int64) for here, column in known]
