"""Where a site's network runs: the local GPU when there is one, else the processor."""

from __future__ import annotations

from typing import Literal

import torch

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
