"""Segmentation: outlines in 2-D and 3-D by Dice and cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.config import Evaluation, SegmentationTask
from common.metrics import Estimate, Statistics
from common.metrics import overlap as metrics
from common.metrics.estimate import Float, bootstrapped
from common.metrics.labels import mean_estimate
from common.tasks.task import Scores

#: Keeps the Dice of an empty structure defined; in voxels.
_SMOOTH = 1.0


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Targets are label maps (*spatial): 0 background, 1.. the structures in order."""

    config: SegmentationTask

    @property
    def outputs(self) -> int:
        """Background and one channel a structure."""
        return 1 + len(self.config.structures)

    @property
    def metric(self) -> str:
        """Dice of all structures together."""
        return "dice"

    def columns(self) -> tuple[str, ...]:
        """Return the column of mask files."""
        return (self.config.mask,)

    def encode(self, row: Mapping[str, str]) -> np.ndarray:
        """Return nothing: the mask is read with its image."""
        del row
        return np.zeros(0, np.float32)

    def stratum(self, row: Mapping[str, str]) -> str:
        """Return whether there is a mask."""
        return "masked" if row[self.config.mask].strip() else "unmasked"

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return soft Dice loss plus weighted cross-entropy, both by item.

        Dice is over the structures of one item (never the batch: that would couple
        patients), Milletari et al. 2016, eq. 4, with squares left out.
        """
        truth = target.long()
        entropy = F.cross_entropy(output, truth, reduction="none").flatten(1).mean(1)
        probability = output.softmax(1)[:, 1:].flatten(2)
        seen = torch.stack([truth == k for k in range(1, self.outputs)], 1).flatten(2)
        seen = seen.to(probability.dtype)
        both = (probability * seen).sum(2)
        dice = (2 * both + _SMOOTH) / (probability.sum(2) + seen.sum(2) + _SMOOTH)
        return (1 - dice).mean(1) + self.config.cross_entropy_weight * entropy

    def predict(self, output: Tensor) -> Tensor:
        """Return the label map, (items, *spatial), uint8."""
        return output.argmax(1).to(torch.uint8)

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return sums of Dice and surface distance; few items give none."""
        del rules
        by_item = self._by_item(scores)
        present = ~np.isnan(by_item)
        values = np.nan_to_num(by_item)
        return Statistics(
            patients=np.array(float(len(by_item))),
            cells={"present": present.sum(0).astype(np.float64)},
            sums={
                "value": values.sum(0),
                "squared": (values**2).sum(0),
                "loss": np.array(float(scores.loss.double().sum())),
            },
        )

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return mean Dice and distance over the items that hold the structure."""
        del rules
        value, squared = statistics.sums["value"], statistics.sums["squared"]
        present = statistics.cells["present"]
        return {
            name: mean_estimate(value[k], squared[k], float(present[k]))
            for k, name in enumerate(self._names())
        }

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        del rules
        by_item = self._by_item(scores)
        return {
            name: bootstrapped(partial(_mean, by_item[:, k]), weights)
            for k, name in enumerate(self._names())
        }

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the mean Dice of all structures together for each bootstrap draw."""
        del rules
        predicted, truth = scores.prediction.numpy(), scores.target.numpy()
        return _mean(metrics.dice_by_item(predicted, truth, self.outputs - 1)[:, -1], weights)

    def _names(self) -> tuple[str, ...]:
        """Name the columns of `_by_item`."""
        each = tuple(f"dice_{name}" for name in self.config.structures)
        return (*each, "dice", "false_alarm", "surface_distance_voxels")

    def _by_item(self, scores: Scores) -> Float:
        predicted, truth = scores.prediction.numpy(), scores.target.numpy()
        dice = metrics.dice_by_item(predicted, truth, self.outputs - 1)
        alarms = metrics.false_alarms(predicted, truth)
        even = (1.0,) * (truth.ndim - 1)
        distance = metrics.surface_distance_by_item(predicted, truth, even)
        return np.column_stack([dice, alarms, distance])


def _mean(values: Float, weights: Float) -> Float:
    known = ~np.isnan(values)
    total = weights[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (weights[:, known] @ values[known]) / total, np.nan)
