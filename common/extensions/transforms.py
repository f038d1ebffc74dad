"""Transforms of extensions: training images, one by one, each with a generator of its own.

Only runs without privacy take them (common/config/run_config.py): what Python does between two
patients is not bounded.

Public: transforms_of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from pydantic import BaseModel
from torch import Tensor

from common.config.parts.extension import ExtensionUse
from common.config.run_config import RunConfig
from common.extensions.contract import TransformExtension
from common.extensions.foreign_code import refusing
from common.extensions.loading import checked_arguments, load
from common.platform.errors import ExtensionRefused

#: Images (items, channels, *size) and targets (items, ...) to the same of the same shapes.
Transforms = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
_Apply = Callable[[Tensor, Tensor | None, torch.Generator], tuple[Tensor, Tensor | None]]
_Named = tuple[str, _Apply]


def transforms_of(config: RunConfig) -> Transforms | None:
    """Return the run's transforms, one after another; None where it has none.

    ExtensionRefused unless each keeps the contract, tried here on made-up images.
    """
    images, moves = config.cohort.images, config.task.outlines
    if not config.training.transforms or images is None:
        return None
    named = [_loaded(config, use) for use in config.training.transforms]
    image = torch.rand(
        (images.input_channels, *images.size), generator=torch.Generator().manual_seed(0)
    )
    target = (image[0] > 0.5).to(torch.uint8) if moves else None
    for one in named:
        _try(one, image, target)
    return partial(_all, named, moves=moves)


def _loaded(config: RunConfig, use: ExtensionUse) -> _Named:
    kind: TransformExtension[BaseModel] = load(
        config.extensions, "transforms", use.name, TransformExtension
    )
    arguments = checked_arguments(kind.arguments, use, "training.transforms")
    return use.name, partial(kind.apply, arguments)


def _all(
    named: list[_Named], image: Tensor, target: Tensor, generator: torch.Generator, *, moves: bool
) -> tuple[Tensor, Tensor]:
    changed, moved = image.clone(), target.clone() if moves else target
    for item in range(len(image)):
        for one in named:
            seed = int(torch.randint(2**62, (), generator=generator))
            truth = moved[item] if moves else None
            changed[item], truth = _applied(one, changed[item], truth, seed)
            if truth is not None:
                moved[item] = truth
    return changed, moved


def _applied(
    one: _Named, image: Tensor, target: Tensor | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Return an image changed, checked; what it was given stays as it was."""
    name, apply = one
    own = torch.Generator().manual_seed(seed)
    truth = None if target is None else target.clone()
    with refusing(f"{name} fails"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        changed, moved = apply(image.clone(), truth, own)
    fault = _fault(image, changed) or _target_fault(target, moved)
    if fault is not None:
        message = f"{name} gives {fault}. Tell its author."
        raise ExtensionRefused(message)
    return changed, moved


def _fault(image: Tensor, changed: object) -> str | None:
    if not isinstance(changed, Tensor):
        return f"{type(changed).__name__}, expected a tensor"
    if changed.shape != image.shape or changed.dtype != image.dtype:
        return (
            f"an image {tuple(changed.shape)} of {changed.dtype}, expected {tuple(image.shape)} of "
            f"{image.dtype}"
        )
    return None if bool(torch.isfinite(changed).all()) else "an image that is not finite"


def _target_fault(target: Tensor | None, moved: object) -> str | None:
    if target is None:
        return None if moved is None else "a map of structures, where there was none"
    if not isinstance(moved, Tensor) or moved.shape != target.shape or moved.dtype != target.dtype:
        return "another map of structures in shape or type"
    known = torch.unique(torch.cat([target.flatten(), target.new_zeros(1)]))
    return None if bool(torch.isin(moved, known).all()) else "a structure that was not there"


def _try(one: _Named, image: Tensor, target: Tensor | None) -> None:
    """Refuse a transform that remembers, or that draws from elsewhere."""
    first = _applied(one, image, target, 1)
    _applied(one, 100 * image, target, 2)
    again = _applied(one, image, target, 1)
    same = all(
        a is b or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(first, again, strict=True)
    )
    if not same:
        message = (
            f"{one[0]} gives another image from the same seed: it remembers what it saw, or draws "
            "from elsewhere than torch's generators. Tell its author."
        )
        raise ExtensionRefused(message)
