"""The network and task that a site keeps loaded from round to round."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from common.config import RunConfig
from common.network import local_names, network_of
from common.tasks import Task, task_of
from common.weights import Weights, trainable


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """What a run needs that costs seconds to build; its weights are overwritten every round."""

    config: RunConfig
    seed: int
    task: Task
    model: nn.Module
    local: frozenset[str]  # parameters that never leave the site
    initial_local: Weights  # those parameters before the first round

    def own_layers(self, kept: Weights) -> dict[str, Tensor]:
        """Return a site's own layers: as it kept them, or as the run's seed made them."""
        return {name: kept.get(name, self.initial_local[name]) for name in self.local}


def open_workbench(config: RunConfig, seed: int) -> Workbench:
    """Build the network of a run."""
    model = network_of(config, seed)
    local = local_names(config, model)
    return Workbench(
        config=config,
        seed=seed,
        task=task_of(config.task),
        model=model,
        local=local,
        initial_local={n: v.clone() for n, v in trainable(model).items() if n in local},
    )
