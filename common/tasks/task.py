"""Interface of a task: targets in; losses by item, predictions and statistics out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from common.config.run_config import Evaluation
from common.metrics.intervals import (
    Estimate,
    Float,
    Owners,
    bootstrap_weights,
    difference,
    mean_estimate,
)
from common.metrics.statistics import Statistics


class UnusableLabel(ValueError):
    """A row's label cannot be used; the message is its reason, told to the site alone."""


class Scores(NamedTuple):
    """Predictions on a site's own patients; never leave the site."""

    #: Of volumes that keep their own extents both are as `Segmentation.measured` gives them.
    prediction: Tensor  # (patients or images, ...) as `Task.predict` gives them
    target: Tensor  # (patients or images, ...) as `Task.encode` made them
    loss: Tensor  # (patients or images,)
    owner: Tensor | None = None  # (images,) which patient; None: each row is another patient


class Task(Protocol):
    """Diagnosis, prognosis or segmentation; frozen, and made by `common.tasks.task_of`."""

    @property
    def outputs(self) -> int:
        """Output channels that the network needs."""
        ...

    @property
    def logits(self) -> int:
        """Channels of what `item_loss` and `predict` take, once `completed` saw the network."""
        ...

    def completed(self, network: nn.Module) -> nn.Module:
        """Return the network with what of the task is learned beside it, mostly as it is."""
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

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return the row that one target is counted in, of each of `outcome_tables`."""
        ...

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return the target of nobody, for its shape and type; size is that of the image."""
        ...

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return one loss per item, shape (items,); no item's loss depends on another's."""
        ...

    def predict(self, output: Tensor) -> Tensor:
        """Return what a person reads: probabilities, survival at the edges, or a label map."""
        ...

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return mergeable statistics without small cells, or sums over them.

        With `count_noise` > 0: fixed histograms, each patient in one cell of each row, to be
        noised before they leave (`common.metrics.with_count_noise`), and no sums.
        """
        ...

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return every metric of merged statistics, with its interval, by name."""
        ...

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return every metric from the scores themselves, where the scores are.

        weights are bootstrap draws, (draws, patients or images); see `patient_weights`.
        """
        ...

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the task's metric for each row of weights, (draws,): for paired comparisons."""
        ...


@runtime_checkable
class Outlining(Protocol):
    """What a task of outlines can do beside."""

    def dice(self, scores: Scores) -> Float:
        """Return Dice by item: a column a structure, and all of them together."""
        ...

    def measured(self, maps: Scores) -> Scores:
        """Return scores of what was measured of label maps, in place of the maps."""
        ...

    def filled(self, scores: Scores, structure: int) -> Scores:
        """Return scores of a map of one structure (0: none) everywhere."""
        ...


@runtime_checkable
class Observing(Protocol):
    """What a task of one event over time can do beside."""

    def observed(self, statistics: Statistics, rules: Evaluation) -> dict[float, Estimate]:
        """Return survival as it was seen, by time, of merged statistics."""
        ...


class PlainOutputs(ABC):
    """A task whose network's outputs are what its loss and predictions take."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Output channels that the network needs."""

    @property
    def logits(self) -> int:
        """Return as many as the network has outputs."""
        return self.outputs

    def completed(self, network: nn.Module) -> nn.Module:
        """Return the network as it is."""
        return network


def owners(scores: Scores) -> Owners:
    """Return which patient each row belongs to."""
    if scores.owner is None:
        return np.arange(len(scores.loss))
    return scores.owner.numpy().astype(np.int64)


def by_patient(scores: Scores) -> Tensor:
    """Return the mean loss of each patient's rows, (patients,), in float64."""
    _, place = np.unique(owners(scores), return_inverse=True)
    loss, where = scores.loss.double(), torch.from_numpy(place)
    rows = torch.bincount(where)
    return torch.zeros(len(rows), dtype=torch.float64).index_add_(0, where, loss) / rows


def no_scores(like: Scores) -> Scores:
    """Return the scores of nobody, in the form of others."""
    owner = None if like.owner is None else like.owner[:0]
    return Scores(
        prediction=like.prediction[:0], target=like.target[:0], loss=like.loss[:0], owner=owner
    )


def patient_weights(scores: Scores, draws: int, seed: int) -> Float:
    """Return bootstrap draws of patients, (draws, rows): a patient's images are drawn together."""
    _, place = np.unique(owners(scores), return_inverse=True)
    patients = int(place.max()) + 1 if len(place) else 0
    return bootstrap_weights(patients, draws, seed)[:, place] if patients else np.ones((draws, 0))


def paired_difference(
    task: Task, ours: Scores, theirs: Scores, rules: Evaluation, seed: int
) -> Estimate:
    """Return by how much the task's metric is higher for ours, on the same patients' scores."""
    return difference(
        lambda drawn: task.draws(ours, drawn, rules),
        lambda drawn: task.draws(theirs, drawn, rules),
        patient_weights(ours, rules.bootstrap, seed),
    )


def at_least_float32(output: Tensor) -> Tensor:
    """Return the output in float32 or better: losses of half precision lose small ones."""
    return output.to(torch.promote_types(output.dtype, torch.float32))


def whole(scores: Scores, rules: Evaluation) -> Float:
    """Return the number of rows, () ; 0 when they are of too few patients."""
    enough = len(np.unique(owners(scores))) >= rules.smallest_cell
    return np.array(float(len(scores.loss)) if enough else 0.0)


def loss_sums(scores: Scores, rules: Evaluation) -> dict[str, Float]:
    """Return the sum of losses and of their squares; 0 when they are of too few patients."""
    loss = scores.loss.double().numpy() * float(whole(scores, rules) > 0)
    return {"loss": np.array(loss.sum()), "loss_squared": np.array((loss**2).sum())}


def loss_estimate(statistics: Statistics) -> Estimate:
    """Return the mean loss of merged statistics."""
    total, squared = (float(statistics.sums[name]) for name in ("loss", "loss_squared"))
    return mean_estimate(total, squared, float(statistics.patients), most=float("inf"))
