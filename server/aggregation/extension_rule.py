"""An extension's rule of aggregation: it sees what sites released, and is seeded by the round.

Every update of a round is held in memory: such a rule may compare sites with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from pydantic import BaseModel
from torch import Tensor

from common.config.extension import ExtensionUse
from common.config.run_config import Aggregation
from common.data.weights import Weights
from common.extensions.contract import AggregatorExtension, Combined, SiteChange
from common.extensions.loading import Pins, checked_arguments, load
from common.messages.wire import SiteUpdate
from common.platform.errors import ExtensionRefused, RunFailed
from server.aggregation.rules import Aggregator, Gathering, ServerState, weight_of
from server.aggregation.server_optimizer import init_server, step_server

_PREFIX = "extension/"
_Combine = Callable[[Sequence[SiteChange], Mapping[str, Tensor]], Combined]


def extension_aggregator(config: Aggregation, pins: Pins) -> Aggregator:
    """Return the rule that an extension gives; ExtensionRefused unless it keeps the contract."""
    use = ExtensionUse(name=config.rule, arguments=config.arguments)
    kind: AggregatorExtension[BaseModel] = load(pins, "aggregators", use.name, AggregatorExtension)
    arguments = checked_arguments(kind.arguments, use, "aggregation.arguments")
    combine = partial(kind.combine, arguments)
    _try(use.name, combine)

    def add(gathering: Gathering, update: SiteUpdate) -> None:
        gathering.held.append(update)
        gathering.sites += 1

    def finish(
        gathering: Gathering, weights: Weights, state: ServerState, round_number: int
    ) -> tuple[dict[str, Tensor], ServerState]:
        changes = [
            SiteChange(site=u.site, weight=weight_of(config, u.site), delta=u.delta)
            for u in gathering.held
        ]
        try:
            found = _combined(use.name, combine, changes, _of(state), round_number)
        except ExtensionRefused as refused:
            message = f"Round {round_number} cannot be combined: {refused}"
            raise RunFailed(message) from refused
        after, moments = step_server(config.server, weights, found.change, state)
        return after, moments | {f"{_PREFIX}{n}": v for n, v in found.state.items()}

    return Aggregator(
        init=partial(init_server, config.server),
        begin=lambda _weights: Gathering(total={}, control={}, held=[]),
        add=add,
        finish=finish,
    )


def _of(state: ServerState) -> dict[str, Tensor]:
    return {n.removeprefix(_PREFIX): v for n, v in state.items() if n.startswith(_PREFIX)}


def _combined(
    name: str,
    combine: _Combine,
    changes: Sequence[SiteChange],
    state: Mapping[str, Tensor],
    seed: int,
) -> Combined:
    """Return what a rule makes of changes, checked; ExtensionRefused otherwise."""
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            found: object = combine(changes, state)
    except Exception as error:
        message = f"{name} fails: {type(error).__name__}: {error!s:.300}"
        raise ExtensionRefused(message) from error
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


def _try(name: str, combine: _Combine) -> None:
    """Refuse a rule that remembers outside its state, or that changes what it is given."""
    one, several = (_made_up(sites) for sites in (1, 4))
    first = _combined(name, combine, several, {}, 1)
    later = _combined(name, combine, one, first.state, 2)
    _combined(name, combine, one, {}, 2)
    again = _combined(name, combine, several, {}, 1)
    for found, expected in ((again, first), (_combined(name, combine, one, first.state, 2), later)):
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
