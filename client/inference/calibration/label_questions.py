"""A model's labels as questions with one right answer each, for prediction sets.

The questions are `config.task.alternatives`: classes of which exactly one is true of a patient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.config.run_config import RunConfig

Float = NDArray[np.float64]


def class_probabilities(config: RunConfig, prediction: Float) -> list[Float]:
    """Return (patients, classes) of each question, from (patients, labels)."""
    asked = config.task.alternatives
    if len(asked) == 1 and len(asked[0]) == prediction.shape[1]:
        return [prediction]
    return [np.stack([1 - column, column], axis=1) for column in prediction.T[: len(asked)]]


def true_classes(config: RunConfig, target: Float) -> list[NDArray[np.int64]]:
    """Return each question's right class, (patients,); -1 where the site does not know it."""
    asked = config.task.alternatives
    if len(asked) == 1 and len(asked[0]) == target.shape[1]:
        return [target.argmax(axis=1)]
    known = [(~np.isnan(column), column) for column in target.T[: len(asked)]]
    return [np.where(here, np.nan_to_num(column), -1).astype(np.int64) for here, column in known]
