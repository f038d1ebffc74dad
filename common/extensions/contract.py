"""Contract of an extension: what its distribution's entry points give.

    [project.entry-points."wardround.networks"]
    tiny = "acme_nets:tiny"        # a NetworkExtension

    networks      NetworkExtension       at each site; images and table to outputs
    backbones     BackboneExtension      at each site; recorded once, then it is operations alone
    tasks         TaskExtension          at each site; recorded once, then it is operations alone
    losses        LossExtension          at each site; recorded once, then it is operations alone
    transforms    TransformExtension     at each site, in runs without privacy
    metrics       MetricExtension        where released counts are merged; sees no patient
    aggregators   AggregatorExtension    where released updates are merged; sees no patient

An author imports these types and nothing else of Wardround's. `arguments` is a pydantic model that
checks what the configuration gives; whatever is raised or returned against the contract becomes
ExtensionRefused, which names the extension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from common.config.network_sizes import SizeRule
from common.config.tasks.forms import TaskKind

Arguments = TypeVar("Arguments", bound=BaseModel)
_ANY = SizeRule()


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


@dataclass(frozen=True, kw_only=True)
class TaskExtension(Generic[Arguments]):
    """A task: classes that exclude each other, made of columns of the table, and their loss.

    The configuration names columns and classes; `columns` says of each column how many values it
    may hold, 0 for a number, and `classes` how many there are. `place` makes of one row's values,
    (columns,) float64, the number of its class, (), from 0, or nan, which leaves the row out; on
    made-up rows any other number is refused. A value is the column's number, or the place of its
    text in `values`. `loss` takes one item's logits, (classes,), and its target, a 1 at its class,
    to one number, ().

    Both are called on made-up tensors, and what they do is recorded; a site repeats the record
    for each row or item alone, as with `LossExtension`. Predictions are the softmax of the logits.
    """

    arguments: type[Arguments]
    columns: Callable[[Arguments], Sequence[int]]
    classes: Callable[[Arguments], int]
    place: Callable[[Arguments, Tensor], Tensor]
    loss: Callable[[Arguments, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class BackboneShapes:
    """What a backbone is given: images as the run prepares them."""

    channels: int  # of each image
    size: tuple[int, ...]  # (rows, columns) or (depth, rows, columns)


@dataclass(frozen=True, kw_only=True)
class BackboneExtension(Generic[Arguments]):
    """A frozen backbone: images (items, channels, *size) to features (items, features), float32.

    Its weights are files of the distribution, which its content covers, or are drawn from torch's
    global generator, which is seeded for `build`, alike for every run. They are never trained.

    What it does in evaluation is recorded once, on made-up images of any number; features are
    what the record makes of one image. So there is no branch on values, no chance and no memory,
    and the features of an image depend on that image alone. Those that are not finite count as 0.
    """

    arguments: type[Arguments]  # checks model.arguments of the configuration
    build: Callable[[Arguments, BackboneShapes], nn.Module]
    size: SizeRule = _ANY  # of every side of an image


@dataclass(frozen=True, kw_only=True)
class LossExtension(Generic[Arguments]):
    """A loss of one item: output (outputs[, *size]) and target, as the task encodes it, to ().

    Diagnosis: logits and 0 or 1 by label, nan where a label was left empty; of classes that
    exclude each other, one 1. A horizon: one logit, 0 or 1. Survival by n intervals: n hazard
    logits; event by interval, at risk by interval, time, event. Segmentation: a channel for the
    background and each structure; the map of structures.

    `loss` is called once, on made-up tensors, and what it does with them is recorded; training
    repeats the record. So there is no branch on values, nothing in place, no chance and no memory,
    and a patient's loss cannot follow another's.
    """

    arguments: type[Arguments]
    loss: Callable[[Arguments, Tensor, Tensor], Tensor]
    tasks: frozenset[TaskKind]


@dataclass(frozen=True, kw_only=True)
class TransformExtension(Generic[Arguments]):
    """A random change of one training image, (channels, *size), as the network would take it.

    The second tensor is its map of structures, (*size), which moves with it; None but in
    segmentation. Shapes and types stay, values are finite, the map brings no new structure. Chance
    comes from the generator, or from torch's global one, seeded alike for each image: the same
    seed gives the same bits, whatever came before.
    """

    arguments: type[Arguments]
    apply: Callable[
        [Arguments, Tensor, Tensor | None, torch.Generator], tuple[Tensor, Tensor | None]
    ]


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Merged counts of one label by predicted probability, as sites released them."""

    edges: NDArray[np.float64]  # (bins + 1,) probabilities, rising from 0 to 1
    negative: NDArray[np.float64]  # (draws, bins) patients (or images) without the outcome
    positive: NDArray[np.float64]  # (draws, bins) with it; broken numbers, none below 0


@dataclass(frozen=True, kw_only=True)
class MetricExtension(Generic[Arguments]):
    """A metric of counts: one number, (draws,), for each row of them; nan where there is none.

    Each row alone gives its number; rows are drawn around the counts for the interval. Several
    labels are told as their mean.
    """

    arguments: type[Arguments]
    compute: Callable[[Arguments, LabelCounts], NDArray[np.float64]]
    lowest: float = 0.0  # what it can be; anything else is not told
    highest: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SiteChange:
    """One site's update of a round, bounded and, in a private run, noised."""

    site: str
    weight: float  # public, from aggregation.weights
    delta: Mapping[str, Tensor]  # by parameter, float32; not to be changed


@dataclass(frozen=True, kw_only=True)
class Combined:
    """The update of a round, and what the next round is to know."""

    change: Mapping[str, Tensor]  # names, shapes and types of a delta; finite
    state: Mapping[str, Tensor]  # saved with the run


@dataclass(frozen=True, kw_only=True)
class AggregatorExtension(Generic[Arguments]):
    """A rule of aggregation: changes of one site or more, by name, and the last round's state.

    The state before the first round is {}. Nothing else is remembered, and chance comes from
    torch's global generator alone, which is seeded by the round: the same changes give the same
    bits, in a simulation, between hospitals, and when a run is resumed. `aggregation.server`
    takes the step.
    """

    arguments: type[Arguments]
    combine: Callable[[Arguments, Sequence[SiteChange], Mapping[str, Tensor]], Combined]
