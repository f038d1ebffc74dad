"""Server optimisers: step with the combined update (Reddi et al. 2021, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from common.config.run_config import ServerOptimizer
from common.data.weights import Weights, add_scaled


def init_server(config: ServerOptimizer, weights: Weights) -> dict[str, Tensor]:
    """Return the moments before the first round: m = 0, v = tau^2."""
    match config.kind:
        case "sgd":
            return {}
        case "fedavgm":
            return {f"m/{n}": torch.zeros_like(v) for n, v in weights.items()}
        case "fedadam" | "fedyogi":
            first = {f"m/{n}": torch.zeros_like(v) for n, v in weights.items()}
            return first | {f"v/{n}": torch.full_like(v, config.tau**2) for n, v in weights.items()}


def step_server(
    config: ServerOptimizer, weights: Weights, change: Weights, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the next weights and moments; `change` is the combined update of the round.

    fedavgm is Hsu et al. 2019: v = beta1 v + change. fedadam and fedyogi are algorithm 2:
    no correction of bias (tau^2 as first second moment takes its place), tau outside the root.
    """
    match config.kind:
        case "sgd":
            return add_scaled(weights, change, config.learning_rate), {}
        case "fedavgm":
            moment = {n: config.beta1 * state[f"m/{n}"] + d for n, d in change.items()}
            after = add_scaled(weights, moment, config.learning_rate)
            return after, {f"m/{n}": v for n, v in moment.items()}
        case "fedadam" | "fedyogi":
            first = {
                n: config.beta1 * state[f"m/{n}"] + (1 - config.beta1) * d
                for n, d in change.items()
            }
            second = {n: _second(config, state[f"v/{n}"], d) for n, d in change.items()}
            step = {n: m / (second[n].sqrt() + config.tau) for n, m in first.items()}
            moments = {f"m/{n}": v for n, v in first.items()}
            moments |= {f"v/{n}": v for n, v in second.items()}
            return add_scaled(weights, step, config.learning_rate), moments


def _second(config: ServerOptimizer, moment: Tensor, change: Tensor) -> Tensor:
    """Return the second moment after a change."""
    square = change**2
    if config.kind == "fedyogi":
        return moment - (1 - config.beta2) * square * torch.sign(moment - square)
    return config.beta2 * moment + (1 - config.beta2) * square
