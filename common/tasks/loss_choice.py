"""The loss that a run is trained by: the task's own, ours of some emphasis, or an extension's."""

from __future__ import annotations

import torch
from torch import Tensor

from common.config.run_config import RunConfig
from common.extensions.foreign_code import refusing
from common.extensions.losses import ItemLoss, loss_of, recorded_loss
from common.tasks.emphasis import emphasised
from common.tasks.task import Task

#: Of the full resolution, half and a quarter of it; they add up to 1
#: (1, 1/2, 1/4: Isensee et al. 2021, nnU-Net).
_WEIGHTS = (4 / 7, 2 / 7, 1 / 7)


def training_loss(config: RunConfig, task: Task) -> ItemLoss:
    """Return the loss to train by; ExtensionRefused unless an extension's keeps the contract."""
    found = _loss(config, task)
    return deeply(found) if config.model.deep_supervision else found


def _loss(config: RunConfig, task: Task) -> ItemLoss:
    found, images = loss_of(config), config.cohort.images
    if found is None:
        return emphasised(config) or task.item_loss
    # Nobody's: no label, no structure, an end that was not seen.
    target = torch.from_numpy(task.blank_target(() if images is None else tuple(images.size)))
    spatial = target.shape if config.task.outlines else ()
    output = torch.randn((task.logits, *spatial), generator=torch.Generator().manual_seed(0))
    name, loss = found
    with refusing(f"{name} fails"):
        return recorded_loss(name, loss, output, target)


def deeply(loss: ItemLoss) -> ItemLoss:
    """Return the loss by item of answers at three resolutions; of one it is as it was."""

    def weighed(output: Tensor, target: Tensor) -> Tensor:
        if output.dim() == target.dim() + 1:
            return loss(output, target)
        each = [w * loss(output[:, k], target) for k, w in enumerate(_WEIGHTS)]
        return torch.stack(each).sum(dim=0)

    return weighed
