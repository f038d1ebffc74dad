"""FedProx (Li et al. 2020, equation 2): a pull of each local step towards the round's weights."""

from __future__ import annotations

from torch import nn

from common.data.weights import Weights


def add_proximal_pull(model: nn.Module, start: Weights, strength: float) -> None:
    """Site: add strength x (w - w of the round's start) to each gradient of a shared layer."""
    if strength == 0.0:
        return
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and name in start:
            before = start[name].to(parameter.device)
            parameter.grad.add_(parameter.detach() - before, alpha=strength)
