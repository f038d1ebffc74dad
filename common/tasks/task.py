"""What a task is: targets in, a loss per item, predictions and mergeable statistics out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from common.config import Evaluation
from common.metrics import Estimate, Statistics


class UnusableLabel(ValueError):
    """A row's label cannot be used; the message is its reason, told to the site alone."""


class Scores(NamedTuple):
    """Predictions on a site's own patients; never leave the site."""

    prediction: Tensor  # (patients or images, ...) as `Task.predict` gives them
    target: Tensor  # (patients or images, ...) as `Task.encode` made them
    loss: Tensor  # (patients or images,)


class Task(Protocol):
    """Diagnosis, prognosis or segmentation; frozen, and made by `common.tasks.task_of`."""

    @property
    def outputs(self) -> int:
        """Output channels that the network needs."""
        ...

    @property
    def metric(self) -> str:
        """Name of the metric that summarises the task; higher is better."""
        ...

    def columns(self) -> tuple[str, ...]:
        """Return the columns of labels.csv that the target is made of."""
        ...

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return one item's target from its row (masks are read elsewhere), or UnusableLabel."""
        ...

    def stratum(self, row: Mapping[str, str]) -> str:
        """Return what the split is balanced by: the class, the event, or the same for all."""
        ...

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return one loss per item, shape (items,); no item's loss depends on another's."""
        ...

    def predict(self, output: Tensor) -> Tensor:
        """Return what a person reads: probabilities, survival at the edges, or a label map."""
        ...

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return mergeable statistics; small cells are withheld or joined already."""
        ...

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return every metric of merged statistics, with its interval, by name."""
        ...

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return every metric from the scores themselves, where the scores are.

        weights are bootstrap draws, (draws, patients or images); see
        `common.metrics.bootstrap_weights`.
        """
        ...

    def draws(
        self, scores: Scores, weights: np.ndarray, rules: Evaluation
    ) -> np.ndarray:
        """Return the task's metric for each row of weights, (draws,): for paired comparisons."""
        ...
