"""From features to outputs: one scheme for images, tables and both.

Late fusion: the image becomes a vector of features, the table's columns (scaled, with a missing
indicator each) are put beside it, and one head sees both. Without images, or with features that
were computed before, the body does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A body that makes features of an image, and a head over features and table."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return (items, outputs) of (items, channel, *spatial) and (items, columns)."""
        features: Tensor = self.body(image)
        outputs: Tensor = self.head(torch.cat([features, table], dim=1))
        return outputs


class WithAbsence(nn.Module):
    """A body whose features say beside the others which channels are absent: all zeros.

    A network cannot tell a sequence that nobody took from one that shows nothing.
    """

    def __init__(self, body: nn.Module, lacking: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.lacking = lacking  # channels that may be absent

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, features + channels that may be absent) of (items, channel, *spatial)."""
        channels = image[:, list(self.lacking)].flatten(2)
        absent = (channels.abs().amax(dim=2) == 0).to(image.dtype)
        features: Tensor = self.body(image)
        return torch.cat([features, absent], dim=1)


class Segmenter(nn.Module):
    """A body that keeps the image's size, and a head that gives each voxel its outputs."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return (items, outputs, *spatial) of (items, channel, *spatial); no table is used."""
        del table
        outputs: Tensor = self.head(self.body(image))
        return outputs


def linear_head(
    inputs: int, outputs: int, hidden: Sequence[int] = (), *, dropout: float = 0.0
) -> nn.Sequential:
    """Return linear layers with ReLU between them; `hidden=()` is one linear layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def start_at_zero(head: nn.Sequential) -> nn.Sequential:
    """Zero the last layer: every run starts from one public constant, the output 0."""
    last = head[-1]
    if isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return head
