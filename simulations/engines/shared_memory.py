"""Tensors that forked processes share."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

from common.data.weights import Weights
from common.platform.errors import ConfigurationError


def shared_like(like: Weights) -> dict[str, Tensor]:
    """Return tensors of these names and shapes on one flat memory that forked processes share.

    Anonymous memory, not /dev/shm: that is 64 MB in many containers.
    """
    odd = {name: value.dtype for name, value in like.items() if value.dtype != torch.float32}
    if odd:
        message = f"Workers share float32 weights only, found {odd}. Use --workers 1."
        raise ConfigurationError(message)
    total = sum(value.numel() for value in like.values())
    flat = torch.frombuffer(mmap.mmap(-1, 4 * max(total, 1)), dtype=torch.float32)
    views, start = {}, 0
    for name, value in like.items():
        end = start + math.prod(value.shape)
        views[name] = flat[start:end].view(value.shape)
        start = end
    return views


def fill(target: Weights, source: Weights) -> None:
    """Copy every tensor of the source to the shared one of its name."""
    for name, value in source.items():
        target[name].copy_(value)
