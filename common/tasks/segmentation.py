"""Segmentation: outlines in 2-D and 3-D by Dice and cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.config.run_config import Evaluation, SegmentationTask
from common.metrics.dice import dice_by_item, dice_histogram, false_alarms, mean_of_histogram
from common.metrics.intervals import Estimate, Float, bootstrapped, mean_estimate, weighted_mean
from common.metrics.small_cells import counted
from common.metrics.statistics import Statistics
from common.metrics.surface_distance import distances_by_item
from common.tasks.task import (
    PlainOutputs,
    Scores,
    at_least_float32,
    loss_estimate,
    loss_sums,
    owners,
    whole,
)

#: Keeps the Dice of an empty structure defined; in voxels.
_SMOOTH = 1.0


@dataclass(frozen=True, kw_only=True)
class Segmentation(PlainOutputs):
    """Targets are label maps (*spatial): 0 background, 1.. the structures in order."""

    config: SegmentationTask
    spacing: tuple[float, ...] | None = None  # mm between voxels as the network sees them

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

    def outcome_rows(self, target: np.ndarray) -> tuple[str, ...]:
        """Return nothing: outlines are no outcome to be counted."""
        del target
        return ()

    def blank_target(self, size: tuple[int, ...]) -> np.ndarray:
        """Return a map of background alone."""
        return np.zeros(size, np.uint8)

    def item_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return soft Dice loss plus weighted cross-entropy, both by item.

        Dice is over the structures of one item (never the batch: that would couple
        patients), Milletari et al. 2016, eq. 4, with squares left out.
        """
        output, truth = at_least_float32(output), target.long()
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

    def measured(self, maps: Scores) -> Scores:
        """Return scores of what was measured of label maps, in place of the maps.

        For volumes of extents of their own, whose maps are no one tensor: predictions are
        (items, columns), targets (items, 2) voxels of all structures and voxels.
        """
        outlined = (maps.target > 0).flatten(1)
        inside = outlined.sum(1).double()
        sizes = torch.stack([inside, torch.full_like(inside, outlined.shape[1])], 1)
        prediction = torch.from_numpy(self._by_item(maps))
        return maps._replace(prediction=prediction, target=sizes)

    def filled(self, scores: Scores, structure: int) -> Scores:
        """Return scores of a map of one structure (0: none) everywhere."""
        prediction = torch.full_like(scores.prediction, structure)
        if scores.prediction.is_floating_point():
            inside, voxels = scores.target.unbind(1)
            dice = 2 * inside / (voxels + inside) * float(structure > 0)
            nowhere = torch.full_like(dice, torch.nan)
            column = len(self._dice_names) - 1
            prediction[:, column] = torch.where(inside > 0, dice, nowhere)
        return scores._replace(prediction=prediction)

    def statistics(self, scores: Scores, rules: Evaluation) -> Statistics:
        """Return sums of Dice and distances over items that hold the structure."""
        owner = owners(scores)
        if rules.count_noise > 0:
            return dice_histogram(self.dice(scores)[:, : len(self._noised_names)], owner)
        columns = self._by_item(scores).T
        held = [counted(~np.isnan(c), owner, c, rules.smallest_cell) for c in columns]
        kept = [column[rows] for column, rows in zip(columns, held, strict=True)]
        return Statistics(
            patients=whole(scores, rules),
            cells={"present": np.array([float(len(values)) for values in kept])},
            sums={
                "value": np.array([values.sum() for values in kept]),
                "squared": np.array([(values**2).sum() for values in kept]),
            }
            | loss_sums(scores, rules),
        )

    def summarise(self, statistics: Statistics, rules: Evaluation) -> dict[str, Estimate]:
        """Return mean Dice and distances over the items that hold the structure."""
        if rules.count_noise > 0:
            cells = statistics.cells["dice"]
            found = {
                name: mean_of_histogram(row, statistics.noise)
                for name, row in zip(self._noised_names, cells, strict=True)
            }
            # One structure is all of them: it is told once, which takes less noise.
            return found if "dice" in found else found | {"dice": next(iter(found.values()))}
        value, squared = statistics.sums["value"], statistics.sums["squared"]
        present = statistics.cells["present"]
        found = {
            name: mean_estimate(value[k], squared[k], float(present[k]), most=self._most(name))
            for k, name in enumerate(self._names)
        }
        return found | {"loss": loss_estimate(statistics)}

    def exact(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> dict[str, Estimate]:
        """Return all metrics with bootstrap intervals."""
        del rules
        found = {
            name: bootstrapped(partial(weighted_mean, values), weights)
            for name, values in zip(self._names, self._by_item(scores).T, strict=True)
        }
        loss = scores.loss.double().numpy()
        return found | {"loss": bootstrapped(partial(weighted_mean, loss), weights)}

    def draws(self, scores: Scores, weights: np.ndarray, rules: Evaluation) -> np.ndarray:
        """Return the mean Dice of all structures together for each bootstrap draw."""
        del rules
        return weighted_mean(self.dice(scores)[:, -1], weights)

    @property
    def _unit(self) -> str:
        return "voxels" if self.spacing is None else "mm"

    @property
    def _dice_names(self) -> tuple[str, ...]:
        return (*(f"dice_{name}" for name in self.config.structures), "dice")

    @property
    def _noised_names(self) -> tuple[str, ...]:
        """Name the rows of noised counts."""
        return self._dice_names[:1] if len(self.config.structures) == 1 else self._dice_names

    @property
    def _names(self) -> tuple[str, ...]:
        """Name the columns of `_by_item`."""
        parts = [*(f"_{name}" for name in self.config.structures), ""]
        distances = [
            f"{what}{part}_{self._unit}"
            for part in parts
            for what in ("surface_distance", "hausdorff95")
        ]
        return (*self._dice_names, "false_alarm", *distances)

    def _most(self, name: str) -> float:
        return float("inf") if name.endswith(self._unit) else 1.0

    def dice(self, scores: Scores) -> Float:
        """Return Dice by item: a column a structure, and all of them together."""
        if scores.prediction.is_floating_point():  # measured already
            return scores.prediction.double().numpy()[:, : len(self._dice_names)]
        predicted, truth = scores.prediction.numpy(), scores.target.numpy()
        return dice_by_item(predicted, truth, self.outputs - 1)

    def _by_item(self, scores: Scores) -> Float:
        if scores.prediction.is_floating_point():  # measured already
            return scores.prediction.double().numpy()
        predicted, truth = scores.prediction.numpy(), scores.target.numpy()
        alarms = false_alarms(predicted, truth)
        spacing = self.spacing or (1.0,) * (truth.ndim - 1)
        away = distances_by_item(predicted, truth, self.outputs - 1, spacing)
        flat = away.reshape(len(away), away.shape[1] * away.shape[2])
        return np.column_stack([self.dice(scores), alarms, flat])
