"""A run's network, built alike by coordinator and sites."""

from __future__ import annotations

from torch import Tensor, nn

from common.config.parts.extension import is_extension
from common.config.run_config import RunConfig
from common.data.weights import trainable
from common.models import build_model
from common.models.extension_network import foreign_network
from common.models.local_layers import local_names
from common.tasks import Task, task_of


def network_of(config: RunConfig, seed: int, *, start: bool = True) -> nn.Module:
    """Return the run's network with its initial weights: the same bits for the same seed.

    Without `start`, no file of first weights is read: for who puts all weights into it.
    """
    task = task_of(config.task)
    return task.completed(_made(config, task, seed, start=start))


def _made(config: RunConfig, task: Task, seed: int, *, start: bool) -> nn.Module:
    if is_extension(config.model.network):
        return foreign_network(config, task.outputs, seed)
    model, cohort, pins = config.model, config.cohort, config.extensions
    return build_model(model, cohort, task.outputs, seed, pins, start=start)


def initial_weights(config: RunConfig, seed: int) -> dict[str, Tensor]:
    """Return the shared part of the network before the first round."""
    network = network_of(config, seed)
    local = local_names(config, network)
    return {n: v.clone() for n, v in trainable(network).items() if n not in local}
