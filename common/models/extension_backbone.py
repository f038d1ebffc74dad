"""Frozen backbone of an extension: its record, tried out before anything relies on it.

Guarantee: features of an image depend on that image alone. They come from a record of operations on
tensors (common/extensions/recorded.py) that holds copies of the weights; no code of the extension
is run when a patient's image is there, so there is nothing that could remember, draw by chance,
look beside, or write.

Public: Backbone, backbone_of.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from common.config.parts.extension import Extension, ExtensionUse
from common.extensions.contract import BackboneExtension, BackboneShapes
from common.extensions.foreign_code import refusing
from common.extensions.global_state import left_alone
from common.extensions.loading import Pins, checked_arguments, load
from common.extensions.recorded import recorded_network
from common.extensions.seeded import built_twice
from common.platform.errors import ExtensionRefused

#: Weights that are drawn are the same in every run: features are computed once, not for each seed.
_SEED = 0
#: Made-up images, and how much louder those beside the first become.
_ITEMS, _CONTRAST = 3, 100.0
#: Largest difference, as part of the largest feature: beside other images, and of record and code.
_ALONE, _CLOSE = 1e-5, 1e-4
#: What every pixel of an image may be: nothing there, white, far brighter than prepared images are.
_EVEN = (0.0, 1.0, 1e4)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A backbone as it is used: a record, and nothing of the extension's code."""

    record: nn.Module  # (items, channels, *size) to (items, features)
    features: int


def backbone_of(use: ExtensionUse, shape: tuple[int, ...], pins: Pins) -> Backbone:
    """Return an extension's backbone for images (channels, *size); ExtensionRefused otherwise.

    It is recorded once in a process; that it is still what was approved is looked at each time.
    """
    load(pins, "backbones", use.name, BackboneExtension)
    return _ready(use, shape, tuple(pins))


@functools.lru_cache(maxsize=4)
def _ready(use: ExtensionUse, shape: tuple[int, ...], pins: tuple[Extension, ...]) -> Backbone:
    kind: BackboneExtension[BaseModel] = load(pins, "backbones", use.name, BackboneExtension)
    arguments = checked_arguments(kind.arguments, use, "model.arguments")
    shapes = BackboneShapes(channels=shape[0], size=shape[1:])
    _check_size(use.name, kind, shapes)
    pair = built_twice(use.name, lambda: kind.build(arguments, shapes), _SEED)
    network, code = (one.eval() for one in pair)
    with refusing(f"{use.name} cannot be recorded"), left_alone(use.name):
        images = torch.rand((_ITEMS, *shape), generator=torch.Generator().manual_seed(0))
        record = recorded_network(use.name, network, images)
        features = _check_record(use.name, record, images)
        _check_code(use.name, record, code, images)
    return Backbone(record=record, features=features)


def _check_size(name: str, kind: BackboneExtension[BaseModel], shapes: BackboneShapes) -> None:
    near = [kind.size.nearest(side) for side in shapes.size]
    if near != list(shapes.size):
        message = (
            f"cohort.images.size={list(shapes.size)} does not fit {name}: every side must be a "
            f"multiple of {kind.size.multiple} and at least {kind.size.smallest}. Nearest: {near}"
        )
        raise ExtensionRefused(message)


def _check_record(name: str, record: nn.Module, images: Tensor) -> int:
    """Return how many features the record gives, of each image alone and finite."""
    with torch.no_grad():
        together, alone = _answer(name, record, images), _answer(name, record, images[:1])
        loud = images.clone()
        loud[1:] *= _CONTRAST
        beside = _answer(name, record, loud)
        even = [_answer(name, record, torch.full_like(images[:1], value)) for value in _EVEN]
    if not _near(beside[:1], together[:1], _ALONE) or not _near(alone, together[:1], _CLOSE):
        message = (
            f"{name} gives an image other features beside other images: it takes means over "
            "several. Tell its author."
        )
        raise ExtensionRefused(message)
    for value, found in zip(_EVEN, even, strict=True):
        if not bool(torch.isfinite(found).all()):
            message = (
                f"{name}: features of an image that is {value:g} everywhere are not finite. Divide "
                "by nothing that can be 0, or add a small number to it."
            )
            raise ExtensionRefused(message)
    return together.shape[1]


def _answer(name: str, record: nn.Module, images: Tensor) -> Tensor:
    try:
        found: Tensor = record(images)
    except Exception as error:
        message = (
            f"{name} does not take images {tuple(images.shape)}: {type(error).__name__}: "
            f"{error!s:.300}"
        )
        raise ExtensionRefused(message) from error
    if found.dim() != 2 or len(found) != len(images) or found.dtype != torch.float32:
        message = (
            f"{name} gives {tuple(found.shape)} of {found.dtype} for {len(images)} images, "
            f"expected ({len(images)}, features) of torch.float32."
        )
        raise ExtensionRefused(message)
    return found


def _check_code(name: str, record: nn.Module, code: nn.Module, images: Tensor) -> None:
    """Refuse code that does otherwise than its record: it remembers, or it draws by chance.

    It could not do so to a patient. But who wrote it wants something else than they would get.
    """
    first, other = images[:1], _CONTRAST * images[1:2]
    for image in (first, other, first):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                found: object = code(image.clone())
        except Exception as error:
            message = f"{name} fails: {type(error).__name__}: {error!s:.300}"
            raise ExtensionRefused(message) from error
        with torch.no_grad():
            expected = record(image)
        # Of another type it may be one that the recording left in a memory of the code.
        if type(found) is not Tensor or not _near(found, expected, _CLOSE):
            message = (
                f"{name} does otherwise when it is recorded: a memory of what it saw before, or "
                "chance, has no place in a record. Tell its author."
            )
            raise ExtensionRefused(message)


def _near(found: Tensor, expected: Tensor, part: float) -> bool:
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    return found.shape == expected.shape and torch.allclose(
        found, expected, rtol=0, atol=part * largest + 1e-9
    )
