"""Choice of the device that a site's network runs on, and of what it computes in there."""

from __future__ import annotations

import time
from typing import Literal

import torch
from torch import Tensor, nn

from common.platform.errors import ConfigurationError

#: Of a run's steps (`training.precision`); None: float32, or what is faster on a GPU.
Precision = Literal["float32", "bf16"] | None


def device_of(wanted: str) -> torch.device:
    """Return the device of site.yaml; ConfigurationError for a GPU that is not there."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        wanted = "cuda" if there else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and not there:
        message = (
            f"site.yaml says device: {wanted}, and torch finds no GPU. Install the driver and a "
            "CUDA build of torch, or write device: auto."
        )
        raise ConfigurationError(message)
    if (device.index or 0) >= max(there, 1):
        message = (
            f"site.yaml says device: {wanted}, and torch finds {there}: cuda:0 to "
            f"cuda:{there - 1}. Write one of these."
        )
        raise ConfigurationError(message)
    return device


def place(
    model: nn.Module,
    device: torch.device,
    trial: tuple[Tensor, Tensor] | None = None,
    precision: Precision = None,
) -> nn.Module:
    """Put a network on a device; it still takes and gives float32 tensors of the processor's.

    Patients, losses and noise stay where they are, so nothing else needs to know of the device.
    The forward pass is bfloat16 under autocast

        precision bf16       in training, and float32 where the network is measured
        precision float32    never
        None, on a GPU       where that is faster, by images and a table to try it on
        None, else           never

    Weights, gradients, clipping, sums and noise are float32 always. Names of parameters stay, and a
    copy of the network is on the device, too. ConfigurationError for a GPU without bfloat16.
    """
    if device.type == "cpu" and precision != "bf16":
        return model
    on_gpu = device.type == "cuda"
    able = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not able:
        message = (
            "training.precision=bf16, and this machine's GPU does not compute in bfloat16. Write "
            "device: cpu in site.yaml, or take part in runs without it."
        )
        raise ConfigurationError(message)
    kind: type[nn.Module] = type(model)

    class OnDevice(kind):  # type: ignore[misc, valid-type]  # the network's own class, moved
        """A network on its device, at its precision."""

        in_half = False  # whether every forward pass is bfloat16
        steps_in_half = precision == "bf16"  # whether those of training are

        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            """Return the output of (items, ...) images and table, both from the processor."""
            half = self.in_half or (self.steps_in_half and self.training)
            # Nothing is kept of the weights in bfloat16: gradients by patient ask for them anew.
            with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                output: Tensor = super().forward(
                    image.to(device, non_blocking=True), table.to(device, non_blocking=True)
                )
            return output.float().cpu()

    model.to(device)
    model.__class__ = OnDevice
    if on_gpu and able and trial is not None and precision is None:
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
