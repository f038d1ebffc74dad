"""Choice of the device that a site's network runs on: its GPU, else the processor."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import Tensor, nn

from common.platform.errors import ConfigurationError


def device_of(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device; ConfigurationError when a GPU is asked for and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        message = (
            "site.yaml says device: cuda, and torch finds no GPU. Install the driver and a CUDA "
            "build of torch, or write device: auto."
        )
        raise ConfigurationError(message)
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def place(
    model: nn.Module, device: torch.device, trial: tuple[Tensor, Tensor] | None = None
) -> nn.Module:
    """Put a network on a device; it still takes and gives tensors of the processor's.

    Patients, losses and noise stay where they are, so nothing else needs to know of the device.
    With images and a table to try it on, the forward pass is bfloat16 under autocast where that
    is faster; clipping, sums and noise are float32 always. Names of parameters stay, and a copy
    of the network is on the device, too.
    """
    if device.type == "cpu":
        return model
    kind: type[nn.Module] = type(model)

    class OnDevice(kind):  # type: ignore[misc, valid-type]  # the network's own class, moved
        """A network whose parameters are on a GPU."""

        in_half = False  # whether the forward pass is bfloat16

        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            """Return the output of (items, ...) images and table, both from the processor."""
            with torch.autocast(device.type, torch.bfloat16, enabled=self.in_half):
                output: Tensor = super().forward(
                    image.to(device, non_blocking=True), table.to(device, non_blocking=True)
                )
            return output.float().cpu()

    model.to(device)
    model.__class__ = OnDevice
    if trial is not None and torch.cuda.is_bf16_supported(including_emulation=False):
        seconds = {half: _seconds(model, half, trial) for half in (False, True)}
        model.in_half = seconds[True] < seconds[False]  # type: ignore[assignment]  # nn.Module holds any name
    return model


def _seconds(model: nn.Module, half: bool, trial: tuple[Tensor, Tensor]) -> float:  # noqa: FBT001 - it is what is tried
    """Return the time of a forward and a backward pass, the second of two."""
    model.in_half = half  # type: ignore[assignment]  # nn.Module holds any name
    trained = [p for p in model.parameters() if p.requires_grad]
    took = 0.0
    for _ in range(2):
        start = time.perf_counter()
        torch.autograd.grad(model(*trial).square().sum(), trained, allow_unused=True)
        torch.cuda.synchronize()
        took = time.perf_counter() - start
    return took
