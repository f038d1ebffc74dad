"""SCAFFOLD (Karimireddy et al. 2020, algorithm 1, option II): both halves in one place."""

from __future__ import annotations

from torch import nn

from common.data.weights import Weights, add_scaled


def correct_gradients(model: nn.Module, own: Weights, server: Weights) -> None:
    """Site: add c - c_i to each gradient of a shared layer."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and name in server:
            ours, theirs = own[name], server[name]
            parameter.grad.add_(theirs.to(parameter.device)).sub_(ours.to(parameter.device))


def next_control(own: Weights, server: Weights, delta: Weights, reach: float) -> Weights:
    """Site: return c_i+ = c_i - c + (x - y) / (K x rate); reach is K x rate, delta is y - x."""
    return {name: own[name] - server[name] - delta[name] / reach for name in own}


def next_server_control(server: Weights, mean_change: Weights, share: float) -> Weights:
    """Coordinator: return c + |S| / N x mean of (c_i+ - c_i); share is |S| / N."""
    return add_scaled(server, mean_change, share)
