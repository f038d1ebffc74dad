"""Augmentation of training images: flips, shifts and grey values, drawn anew for each image."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(
    image: Tensor, target: Tensor, generator: torch.Generator, *, outlines: bool
) -> tuple[Tensor, Tensor]:
    """Flip, shift and re-scale a batch; label maps move with their images.

    image is (items, channels, *spatial), target (items, *spatial) where it is of outlines.
    """
    if image.dim() < 4:
        return image, target
    moved, moved_target = torch.empty_like(image), torch.empty_like(target)
    for item in range(len(image)):
        index = _source_index(image.shape[2:], generator)
        moved[item] = _taken(image[item], index)
        if outlines:
            moved_target[item] = _taken(target[item], index)
    shape = (len(image), *[1] * (image.dim() - 1))
    gain = 1 + 0.1 * torch.randn(shape, generator=generator)
    offset = 0.05 * torch.randn(shape, generator=generator)
    return moved * gain + offset, moved_target if outlines else target


def _source_index(spatial: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    """Return for each axis where every voxel comes from, (length,).

    The last axis is flipped or not; each is shifted by up to a sixteenth, and what moves in
    repeats the border.
    """
    index = []
    for length in spatial:
        most = length // 16
        shift = int(torch.randint(-most, most + 1, (), generator=generator))
        index.append((torch.arange(length) - shift).clamp(0, length - 1))
    if torch.rand((), generator=generator) < 0.5:
        index[-1] = spatial[-1] - 1 - index[-1]
    return index


def _taken(values: Tensor, index: list[Tensor]) -> Tensor:
    """Return (..., *spatial) with each spatial axis read in its own order."""
    for axis, source in enumerate(index, values.dim() - len(index)):
        values = values.index_select(axis, source)
    return values
