"""A run's network, built alike by coordinator and sites."""

from __future__ import annotations

from typing import assert_never

from torch import Tensor, nn

from common.config.extension import is_extension
from common.config.run_config import RunConfig
from common.data.weights import trainable
from common.models import build_model, head_parameters, norm_parameters
from common.models.extension_network import foreign_network
from common.platform.errors import ConfigurationError
from common.tasks import Task, task_of


def network_of(config: RunConfig, seed: int) -> nn.Module:
    """Return the run's network with its initial weights: the same bits for the same seed."""
    task = task_of(config.task)
    return task.completed(_made(config, task, seed))


def _made(config: RunConfig, task: Task, seed: int) -> nn.Module:
    if is_extension(config.model.network):
        return foreign_network(config, task.outputs, seed)
    return build_model(config.model, config.cohort, task.outputs, seed)


def local_names(config: RunConfig, network: nn.Module) -> frozenset[str]:
    """Return the parameters that stay at a site: FedBN's norms, or a personal head.

    ConfigurationError when nothing would be left to share, or nothing to keep.
    """
    match config.personalisation.method:
        case "none" | "fine_tune" | "blend":
            return frozenset()
        case "local_norm":
            kept = frozenset(norm_parameters(network))
        case "personal_head":
            baseline = {n for n, _ in network.named_parameters() if n == "baseline"}
            kept = frozenset(head_parameters(network)) | baseline
        case _:
            assert_never(config.personalisation.method)
    if not kept or len(kept) == len(trainable(network)):
        part = "everything" if kept else "nothing"
        message = (
            f"personalisation.method={config.personalisation.method} keeps {part} of network "
            f"{config.model.network} at the sites. Use fine_tune, or a network with both parts."
        )
        raise ConfigurationError(message)
    return kept


def initial_weights(config: RunConfig, seed: int) -> dict[str, Tensor]:
    """Return the shared part of the network before the first round."""
    network = network_of(config, seed)
    local = local_names(config, network)
    return {n: v.clone() for n, v in trainable(network).items() if n not in local}
