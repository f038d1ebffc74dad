"""A small network for images and a table: an example of an extension of Wardround."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, cat, nn

from common.config.network_sizes import SizeRule
from common.extensions.contract import NetworkExtension, NetworkShapes


class Arguments(BaseModel):
    """What a configuration may write under model.arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = Field(default=8, ge=1, le=256)


class Tiny(nn.Module):
    """A convolution, if there are images, and two linear layers over its means and the table."""

    def __init__(self, arguments: Arguments, shapes: NetworkShapes) -> None:
        super().__init__()
        kinds = {0: None, 2: nn.Conv2d, 3: nn.Conv3d}
        convolution, width = kinds[len(shapes.size)], arguments.width
        self.body = None
        if convolution is not None:
            first = convolution(shapes.channels, width, 5, stride=2, padding=2)
            self.body = nn.Sequential(first, nn.GroupNorm(1, width), nn.ReLU(), nn.Flatten(2))
        features = (width if self.body else 0) + shapes.columns
        self.head = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, shapes.outputs)
        )

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        """Return (items, outputs) of (items, channel, *size) and (items, columns)."""
        features = image if self.body is None else self.body(image).mean(2)
        answer: Tensor = self.head(cat([features, table], dim=1))
        return answer


tiny = NetworkExtension(
    arguments=Arguments,
    build=Tiny,
    tasks=frozenset({"diagnosis", "prognosis"}),
    size=SizeRule(smallest=8),
)
