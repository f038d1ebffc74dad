"""Examples of extensions: a network, a frozen backbone, a task, a rule, a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, bucketize, cat, float64, nn, stack, tensor
from torch.nn.functional import normalize

from common.config.network_sizes import SizeRule
from common.extensions.contract import (
    AggregatorExtension,
    BackboneExtension,
    BackboneShapes,
    Combined,
    LabelCounts,
    MetricExtension,
    NetworkExtension,
    NetworkShapes,
    SiteChange,
    TaskExtension,
)


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


class Filters(nn.Module):
    """A frozen backbone: filters drawn from the seed, and how strongly each answers, to length 1.

    Weights of a file would be read here, from beside this module: its content covers them.
    """

    def __init__(self, arguments: Arguments, shapes: BackboneShapes) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[len(shapes.size)]
        self.filters = convolution(shapes.channels, arguments.width, 7, stride=3, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, width) of (items, channel, *size)."""
        return normalize(self.filters(image).relu().flatten(2).mean(2))


filters = BackboneExtension(arguments=Arguments, build=Filters, size=SizeRule(smallest=8))


class Cuts(BaseModel):
    """What a configuration may write under task.arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    edges: tuple[float, ...] = Field(default=(0.5,), min_length=1)


def grade(arguments: Cuts, values: Tensor) -> Tensor:
    """Return which of the ranges between rising edges a number is in, ()."""
    return bucketize(values[0], tensor(arguments.edges, dtype=float64))


def ranked(_arguments: Cuts, output: Tensor, target: Tensor) -> Tensor:
    """Return the ranked probability score, (): who misses by two grades misses more than by one."""
    return (output.softmax(0).cumsum(0) - target.cumsum(0)).square().sum()


grades = TaskExtension(
    arguments=Cuts,
    columns=lambda _arguments: [0],
    classes=lambda arguments: len(arguments.edges) + 1,
    place=grade,
    loss=ranked,
)


class Limit(BaseModel):
    """What a configuration may write under aggregation.arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    longest: float = Field(default=1.0, gt=0)


def combine(
    arguments: Limit, changes: Sequence[SiteChange], _state: Mapping[str, Tensor]
) -> Combined:
    """Return the mean of changes, each no longer than `longest`."""
    parts = []
    for site in changes:
        length = cat([value.flatten() for value in site.delta.values()]).norm()
        scale = min(1.0, arguments.longest / max(float(length), 1e-12))
        parts.append({name: value * scale for name, value in site.delta.items()})
    return Combined(change={n: stack([p[n] for p in parts]).mean(0) for n in parts[0]}, state={})


clipped_mean = AggregatorExtension(arguments=Limit, combine=combine)


class Threshold(BaseModel):
    """What a configuration may write as the metric's arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: float = Field(default=0.5, gt=0, lt=1)


def accuracy(arguments: Threshold, counts: LabelCounts) -> NDArray[np.float64]:
    """Return the mean of sensitivity and specificity at a threshold, (draws,)."""
    above = counts.edges[:-1] >= arguments.threshold
    sensitivity = counts.positive[:, above].sum(1) / counts.positive.sum(1)
    specificity = counts.negative[:, ~above].sum(1) / counts.negative.sum(1)
    return np.asarray((sensitivity + specificity) / 2)


balanced_accuracy = MetricExtension(arguments=Threshold, compute=accuracy)
