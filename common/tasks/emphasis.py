"""Losses of ours that make more of some items: weights of classes, focal loss, Tversky's index.

All are by item, of public numbers: nothing is counted from a cohort, and no item's loss follows
another's. They train; losses that are measured and choose rounds stay the task's own.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config.run_config import RunConfig
from common.config.tasks.forms import LabelProbabilities
from common.config.tasks.segmentation import SegmentationTask
from common.extensions.losses import ItemLoss
from common.tasks.task import at_least_float32

#: Keeps the index of an empty outline defined, as the task's own Dice does.
_SMOOTH = 1.0
_SMALLEST = 1e-7


def emphasised(config: RunConfig) -> ItemLoss | None:
    """Return the loss that `training` asks for in place of the task's own, or None."""
    training, task = config.training, config.task
    if training.tversky is not None and isinstance(task, SegmentationTask):
        wrong, missed = training.tversky
        entropy = task.cross_entropy_weight
        return partial(outline_loss, wrong=wrong, missed=missed, entropy=entropy)
    if not training.class_weights and training.focal is None:
        return None
    weights, gamma = training.class_weights, training.focal or 0.0
    predicts = task.predicts
    if isinstance(predicts, LabelProbabilities) and predicts.exclusive:
        each = torch.tensor([weights.get(name, 1.0) for name in task.labels])
        return partial(class_loss, weights=each, gamma=gamma)
    present = torch.tensor([weights.get(name, 1.0) for name in task.labels])
    # Of two named classes the second is the label, and the first its absence.
    absent = [names[0] for names in task.named_values.values()] or [""] * len(present)
    return partial(
        label_loss,
        present=present,
        absent=torch.tensor([weights.get(name, 1.0) for name in absent]),
        gamma=gamma,
    )


def class_loss(output: Tensor, target: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Return (items,) of logits and one-hot targets, (items, classes).

    -w (1 - p)^gamma log p of the true class (Lin et al. 2017, eq. 5).
    """
    logs = F.log_softmax(at_least_float32(output), dim=1)
    # Above 0, where a root has no finite slope.
    unsure = (1 - logs.exp()).clamp_min(_SMALLEST)
    factor = weights.to(logs) * unsure**gamma if gamma else weights.to(logs)
    return -(target * factor * logs).sum(dim=1)


def label_loss(
    output: Tensor, target: Tensor, present: Tensor, absent: Tensor, gamma: float
) -> Tensor:
    """Return (items,) of logits and targets of 0, 1 or nan, (items, labels): a mean over the known.

    -w (1 - p)^gamma log p of what is true of each label (Lin et al. 2017, eq. 5).
    """
    output = at_least_float32(output)
    known = ~torch.isnan(target)
    truth = torch.nan_to_num(target)
    signed = torch.where(truth > 0, output, -output)  # logit of what is true
    weights = torch.where(truth > 0, present.to(output), absent.to(output))
    factor = weights * torch.exp(gamma * F.logsigmoid(-signed)) if gamma else weights
    loss = -factor * F.logsigmoid(signed)
    return (loss * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)


def outline_loss(
    output: Tensor, target: Tensor, wrong: float, missed: float, entropy: float
) -> Tensor:
    """Return (items,) of logits (items, 1 + structures, *spatial) and label maps.

    One minus Tversky's index (Salehi et al. 2017, eq. 4), a mean over the structures of one item,
    plus the weighted cross-entropy of its voxels. With 0.5 and 0.5 it is Dice.
    """
    output, truth = at_least_float32(output), target.long()
    crossed = F.cross_entropy(output, truth, reduction="none").flatten(1).mean(1)
    probability = output.softmax(1)[:, 1:].flatten(2)
    seen = torch.stack([truth == k for k in range(1, output.shape[1])], 1).flatten(2)
    seen = seen.to(probability.dtype)
    both = (probability * seen).sum(2)
    extra = (probability * (1 - seen)).sum(2)
    lost = ((1 - probability) * seen).sum(2)
    smooth = _SMOOTH / 2
    index = (both + smooth) / (both + wrong * extra + missed * lost + smooth)
    return (1 - index).mean(1) + entropy * crossed
