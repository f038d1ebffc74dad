"""Where a site's network runs: the local GPU when there is one, else the processor."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import ConfigurationError


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


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Put a network on a device; it still takes and gives tensors of the processor's.

    Patients, losses and noise stay where they are, so nothing else needs to know of the device.
    On a GPU that has it, the forward pass is bfloat16 under autocast: about 4 % off by gradient,
    with 1.0 of its norm (so clipping sees what it should), and clipping and noise are float32.
    Names of parameters stay, and a copy of the network is on the device, too.
    """
    if device.type == "cpu":
        return model
    kind: type[nn.Module] = type(model)
    half = torch.cuda.is_bf16_supported(including_emulation=False)

    class OnDevice(kind):  # type: ignore[misc, valid-type]  # the network's own class, moved
        """A network whose parameters are on a GPU."""

        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            """Return the output of (items, ...) images and table, both from the processor."""
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                output: Tensor = super().forward(
                    image.to(device, non_blocking=True), table.to(device, non_blocking=True)
                )
            return output.float().cpu()

    model.to(device)
    model.__class__ = OnDevice
    return model
