"""Contract of an extension: what its distribution's entry points give.

    [project.entry-points."wardround.networks"]
    tiny = "acme_nets:tiny"        # a NetworkExtension

An author imports these types and nothing else of Wardround's. Two functions do not do: what a
network takes is read before it is built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel
from torch import nn

from common.config.network_sizes import SizeRule

Arguments = TypeVar("Arguments", bound=BaseModel)
_ANY = SizeRule()
TaskKind = Literal["diagnosis", "prognosis", "segmentation"]


@dataclass(frozen=True, kw_only=True)
class NetworkShapes:
    """What a network is given and what it has to give."""

    channels: int  # of each image; 0 without images
    size: tuple[int, ...]  # (rows, columns) or (depth, rows, columns); () without images
    columns: int  # of the table, each missing value with an indicator; 0 without one
    outputs: int  # numbers an item, or in segmentation a pixel


@dataclass(frozen=True, kw_only=True)
class NetworkExtension(Generic[Arguments]):
    """A network: (items, channels, *size) and (items, columns) to (items, outputs[, *size]).

    `build` draws from torch's global generator alone, which is seeded for it: the same seed gives
    the same bits. Each item's answer depends on that item alone; BatchNorm becomes GroupNorm.
    """

    arguments: type[Arguments]  # checks model.arguments of the configuration
    build: Callable[[Arguments, NetworkShapes], nn.Module]
    tasks: frozenset[TaskKind]
    size: SizeRule = _ANY  # of every side of an image
