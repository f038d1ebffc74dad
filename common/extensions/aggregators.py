"""Rules of aggregation of extensions: changes that were released, to one; tried before a run.

Public: combine_of, combined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from pydantic import BaseModel
from torch import Tensor

from common.config.parts.extension import ExtensionUse
from common.extensions.contract import AggregatorExtension, Combined, SiteChange
from common.extensions.foreign_code import refusing
from common.extensions.loading import Pins, checked_arguments, load
from common.platform.errors import ExtensionRefused

Combine = Callable[[Sequence[SiteChange], Mapping[str, Tensor]], Combined]


def combine_of(use: ExtensionUse, pins: Pins) -> Combine:
    """Return an extension's rule; ExtensionRefused unless it keeps the contract."""
    kind: AggregatorExtension[BaseModel] = load(pins, "aggregators", use.name, AggregatorExtension)
    arguments = checked_arguments(kind.arguments, use, "aggregation.arguments")
    combine = partial(kind.combine, arguments)
    _try(use.name, combine)
    return combine


def combined(
    name: str,
    combine: Combine,
    changes: Sequence[SiteChange],
    state: Mapping[str, Tensor],
    seed: int,
) -> Combined:
    """Return what a rule makes of changes, checked; ExtensionRefused otherwise."""
    with refusing(f"{name} fails"), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        found: object = combine(changes, state)
    if not isinstance(found, Combined):
        message = f"{name} gives {type(found).__name__}, expected Combined."
        raise ExtensionRefused(message)
    like = changes[0].delta
    if found.change.keys() != like.keys():
        odd = min(found.change.keys() ^ like.keys())
        message = f"{name} gives a change of other parameters than the updates: {odd!r}."
        raise ExtensionRefused(message)
    for place, value in found.change.items():
        _check(f"{name}: change of {place}", value, like[place])
    for place, value in found.state.items():
        _check(f"{name}: state {place}", value, None)
    # Of its own memory: a tensor that it keeps hold of could be changed later.
    return Combined(
        change={n: v.detach().clone() for n, v in found.change.items()},
        state={n: v.detach().clone().contiguous() for n, v in found.state.items()},
    )


def _check(what: str, value: object, like: Tensor | None) -> None:
    if not isinstance(value, Tensor) or not bool(torch.isfinite(value).all()):
        message = f"{what} is no tensor of finite numbers."
        raise ExtensionRefused(message)
    if like is not None and (value.shape != like.shape or value.dtype != like.dtype):
        message = (
            f"{what} is {tuple(value.shape)} of {value.dtype}, expected {tuple(like.shape)} of "
            f"{like.dtype}."
        )
        raise ExtensionRefused(message)


def _try(name: str, combine: Combine) -> None:
    """Refuse a rule that remembers outside its state, or that changes what it is given."""
    one, several = (_made_up(sites) for sites in (1, 4))
    first = combined(name, combine, several, {}, 1)
    later = combined(name, combine, one, first.state, 2)
    combined(name, combine, one, {}, 2)
    again = combined(name, combine, several, {}, 1)
    for found, expected in ((again, first), (combined(name, combine, one, first.state, 2), later)):
        if not _same(found.change, expected.change) or not _same(found.state, expected.state):
            message = (
                f"{name} gives another change from the same updates: it remembers outside its "
                "state, or draws from elsewhere than torch's generator. Tell its author."
            )
            raise ExtensionRefused(message)
    for given, fresh in zip(several, _made_up(4), strict=True):
        if not _same(given.delta, fresh.delta):
            message = f"{name} changes the updates that it is given. Tell its author."
            raise ExtensionRefused(message)


def _made_up(sites: int) -> list[SiteChange]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"body.weight": (3, 2), "head.bias": (2,), "scale": ()}
    return [
        SiteChange(
            site=f"site{number}",
            weight=1.0 + number,
            delta={n: torch.randn(s, generator=generator) for n, s in shapes.items()},
        )
        for number in range(sites)
    ]


def _same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(v, two[n]) for n, v in one.items())
