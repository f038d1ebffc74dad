"""The network and task that a site keeps loaded between rounds."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from client.training.channel_drop import drop_channels
from client.training.device import place
from client.training.recomputing import recompute
from common.config.patches import PatchRules, patch_rules
from common.config.run_config import RunConfig
from common.data.sample import Batch, patient_loss
from common.data.weights import Weights, trainable
from common.extensions.losses import ItemLoss
from common.extensions.transforms import Transforms, transforms_of
from common.models.bags import answered
from common.models.local_layers import local_names
from common.models.run_network import network_of
from common.tasks import Task, task_of
from common.tasks.loss_choice import training_loss

#: Items with which a network is timed on a GPU.
_TRIAL_ITEMS = 4


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """What a run needs that costs seconds to build; its weights are overwritten every round."""

    config: RunConfig
    seed: int
    task: Task
    item_loss: ItemLoss  # what is trained by: the task's, or an extension's
    transforms: Transforms | None  # an extension's, of training images
    model: nn.Module
    trained: Weights  # views of the model's parameters that training changes
    local: frozenset[str]  # of these, the ones that never leave the site
    initial_local: Weights  # those before the first round
    patches: PatchRules | None = None  # how patches are drawn; None: whole images

    def add_gradient(self, batch: Batch) -> None:
        """Add the gradient of a batch's loss; patches one after another, so that one is in memory.

        No network looks from one item at another, so that the sum is the same up to rounding.
        """
        if self.patches is None:
            output, of = answered(self.model, batch)
            _backward(patient_loss(self.item_loss(output, of.target), of))
            return
        share = batch.weight / batch.weight.sum()
        for one in torch.split(torch.arange(len(share)), 1):
            output = self.model(batch.image[one], batch.table[one])
            _backward((self.item_loss(output, batch.target[one]) * share[one]).sum())

    def load(self, weights: Weights, kept: Weights = MappingProxyType({})) -> None:
        """Put weights into the model, then the site's own layers.

        These are as the site kept them, or as the run's seed made them.
        """
        for name, value in weights.items():
            self.trained[name].copy_(value)
        for name in self.local:
            self.trained[name].copy_(kept.get(name, self.initial_local[name]))


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it so


def open_local_model(
    config: RunConfig,
    seed: int,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    *,
    start: bool = True,
) -> LocalModel:
    """Build a run's network, on a device; without `start`, no file of first weights is read."""
    network, precision = network_of(config, seed, start=start), config.training.precision
    if config.model.checkpoint:
        recompute(network)
    model = place(network, device, _trial_of(config), precision)
    drop_channels(model, config)
    trained, task = trainable(model), task_of(config.task)
    local = local_names(config, model)
    return LocalModel(
        config=config,
        seed=seed,
        task=task,
        item_loss=training_loss(config, task),
        transforms=transforms_of(config),
        model=model,
        trained=trained,
        local=local,
        initial_local={name: trained[name].clone() for name in local},
        patches=patch_rules(config),
    )


def _trial_of(config: RunConfig) -> tuple[Tensor, Tensor] | None:
    """Return made-up images and table to time a network on; None where nothing is gained."""
    images, table = config.cohort.images, config.cohort.table
    if images is None or config.model.network == "frozen_features":
        return None
    image = torch.zeros((_TRIAL_ITEMS, images.input_channels, *images.size))
    return image, torch.zeros((_TRIAL_ITEMS, 0 if table is None else table.width))
