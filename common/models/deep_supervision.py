"""Deep supervision: lower resolutions of a decoder are trained to outline, too.

In training the network answers at three resolutions, each brought to the full one; the loss weighs
them (common/tasks/loss_choice.py). Where it is asked it answers once, as the network without these
heads does, and a bundle holds none of them.

Public: DeepSegmenter, deep_heads, is_deep_head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeepSegmenter(nn.Module):
    """MONAI's DynUNet, its head, and heads for half and a quarter of the resolution."""

    def __init__(self, body: nn.Module, head: nn.Module, deep_heads: nn.ModuleList) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.deep_heads = deep_heads

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return (items, outputs, *spatial), in training (items, 3, outputs, *spatial)."""
        del table
        maps = self._maps(image)
        output: Tensor = self.head(maps[-1])
        if not self.training:
            return output
        size = list(output.shape[2:])
        mode = "bilinear" if len(size) == 2 else "trilinear"
        lower = [
            F.interpolate(head(found), size, mode=mode)
            for head, found in zip(self.deep_heads, (maps[-2], maps[-3]), strict=True)
        ]
        return torch.stack([output, *lower], dim=1)

    def _maps(self, image: Tensor) -> list[Tensor]:
        """Return the decoder's features, the full resolution last, as DynUNet computes them."""
        down, up = (
            cast("nn.ModuleList", getattr(self.body, n)) for n in ("downsamples", "upsamples")
        )
        skips: list[Tensor] = [self.body.get_submodule("input_block")(image)]
        for layer in down:
            skips.append(layer(skips[-1]))
        found: Tensor = self.body.get_submodule("bottleneck")(skips[-1])
        maps = []
        for layer, skip in zip(up, reversed(skips), strict=True):
            found = layer(found, skip)
            maps.append(found)
        return maps


def deep_heads(widths: Sequence[int], dimensions: int, outputs: int) -> nn.ModuleList:
    """Return a 1 x 1 convolution for half and a quarter of the resolution."""
    convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return nn.ModuleList(convolution(width, outputs, kernel_size=1) for width in widths[1:3])


def is_deep_head(name: str) -> bool:
    """Return whether a parameter is of a head that training alone uses."""
    return name.split(".", maxsplit=1)[0] == "deep_heads" or ".deep_heads." in name
