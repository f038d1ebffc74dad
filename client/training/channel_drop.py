"""Channels that are zeros by chance in a training step, so that a missing one costs less later.

Each item's channels but the reference are zeros with `cohort.images.channel_drop`, each drawn by
itself; a classifier sees them as it sees an absent one (common.models.fusion.WithAbsence). The
draws are torch's own, as dropout's are: of the round's seed, or of the secret noise in a private
run (client/privacy/private_step.py). An item's are its own, so a patient's gradient is still that
patient's alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.config.run_config import RunConfig


def drop_channels(model: nn.Module, config: RunConfig) -> None:
    """Have a network's channels dropped wherever it is in training mode."""
    images = config.cohort.images
    if images is not None and len(images.series) > 1 and images.channel_drop > 0:
        drop = ChannelDrop(images.channel_drop, len(images.series), images.reference)
        model.register_forward_pre_hook(drop)


class ChannelDrop:
    """Zeros channels of the images that a network in training mode is given."""

    def __init__(self, chance: float, channels: int, reference: int) -> None:
        self._chance = chance
        self._others = torch.arange(channels) != reference  # (channels,)

    def __call__(self, model: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Return the inputs with channels dropped; None, so as they are, outside of training."""
        if not model.training:
            return None
        image, *rest = given
        gone = torch.rand(image.shape[:2], device=image.device) < self._chance
        kept = ~(gone & self._others.to(image.device))  # (items, channels)
        shape = (*kept.shape, *[1] * (image.dim() - 2))
        return (image * kept.reshape(shape).to(image.dtype), *rest)
