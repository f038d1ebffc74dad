"""Aggregation rules: from the sites' updates to the next weights.

The mean holds one accumulator, in which the next weights are made, and one tensor of an update:
with 32 sites of 11M parameters that is one model beside the weights, not 32. Median, trimmed mean
and Krum compare sites with each other and so must hold every update; the configuration that asks
for them says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.algorithms.scaffold import next_server_control
from common.config.run_config import Aggregation
from common.data.weights import Weights, step_onto, zeros_like
from common.extensions.loading import Pins
from common.messages.wire import SiteUpdate
from server.aggregation.robust import combine_robustly
from server.aggregation.server_optimizer import init_server, step_server

#: What the coordinator carries from round to round beside the weights, by name.
ServerState = Mapping[str, Tensor]


@dataclass
class Gathering:
    """One round's updates while they arrive; made by `begin`, closed by `finish`."""

    total: dict[str, Tensor]  # weighted sum of deltas (mean), empty before the first
    control: dict[str, Tensor]  # sum of control deltas (SCAFFOLD)
    held: list[SiteUpdate]  # every update, only for rules that compare sites
    weight: float = 0.0
    sites: int = 0


@dataclass(frozen=True, kw_only=True)
class Aggregator:
    """The functions of one rule; none of them remembers anything between rounds."""

    init: Callable[[Weights], ServerState]
    begin: Callable[[Weights], Gathering]
    add: Callable[[Gathering, SiteUpdate], None]
    finish: Callable[[Gathering, Weights, ServerState, int], tuple[dict[str, Tensor], ServerState]]


def aggregator_of(config: Aggregation, sites: int, pins: Pins = ()) -> Aggregator:
    """Return the configured rule for a run of so many sites; `pins` are the run's extensions."""
    match config.rule:
        case "mean" | "scaffold":
            return _mean(config, sites)
        case "median" | "trimmed_mean" | "krum" | "multi_krum":
            return _robust(config)
        case "flower":
            # Imported here: Flower takes seconds to load and most runs do not need it.
            from server.aggregation.flower_strategy import flower_aggregator

            return flower_aggregator(config)
        case _:
            # Imported here: it imports this module.
            from server.aggregation.extension_rule import extension_aggregator

            return extension_aggregator(config, pins)


def weight_of(config: Aggregation, site: str) -> float:
    """Return a site's public weight: agreed in the configuration, never its patient count."""
    return config.weights.get(site, config.default_weight)


def _mean(config: Aggregation, sites: int) -> Aggregator:
    scaffold = config.rule == "scaffold"

    def init(weights: Weights) -> ServerState:
        control = {f"control/{n}": v for n, v in zeros_like(weights).items()} if scaffold else {}
        return init_server(config.server, weights) | control

    def begin(weights: Weights) -> Gathering:
        control = zeros_like(weights) if scaffold else {}
        return Gathering(total={}, control=control, held=[])

    def add(gathering: Gathering, update: SiteUpdate) -> None:
        _add_up(config, gathering, update)

    def finish(
        gathering: Gathering, weights: Weights, state: ServerState, round_number: int
    ) -> tuple[dict[str, Tensor], ServerState]:
        del round_number
        for total in gathering.total.values():
            total.div_(gathering.weight)
        after, moments = _stepped(config, weights, gathering.total, state)
        if not scaffold:
            return after, moments
        mean_change = {n: v / gathering.sites for n, v in gathering.control.items()}
        control = next_server_control(control_of(state), mean_change, gathering.sites / sites)
        return after, moments | {f"control/{n}": v for n, v in control.items()}

    return Aggregator(init=init, begin=begin, add=add, finish=finish)


def _add_up(config: Aggregation, gathering: Gathering, update: SiteUpdate) -> None:
    weight = sum(weight_of(config, site) for site in update.sites or (update.site,))
    for name, delta in update.delta.items():
        if name not in gathering.total:  # not before: the request is packed meanwhile
            gathering.total[name] = torch.zeros_like(delta)
        gathering.total[name].add_(delta, alpha=weight)
    if update.control_delta is not None:
        for name, total in gathering.control.items():
            total.add_(update.control_delta[name])
    gathering.weight += weight
    gathering.sites += 1


def _stepped(
    config: Aggregation, weights: Weights, change: dict[str, Tensor], state: ServerState
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what `step_server` returns; the plain step is taken where the mean lies."""
    if config.server.kind == "sgd":
        return step_onto(change, weights, config.server.learning_rate), {}
    return step_server(config.server, weights, change, state)


def control_of(state: ServerState) -> dict[str, Tensor]:
    """Return SCAFFOLD's server control variate; empty for other rules."""
    prefix = "control/"
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _robust(config: Aggregation) -> Aggregator:
    def init(weights: Weights) -> ServerState:
        return init_server(config.server, weights)

    def begin(weights: Weights) -> Gathering:
        del weights
        return Gathering(total={}, control={}, held=[])

    def add(gathering: Gathering, update: SiteUpdate) -> None:
        gathering.held.append(update)
        gathering.sites += 1

    def finish(
        gathering: Gathering, weights: Weights, state: ServerState, round_number: int
    ) -> tuple[dict[str, Tensor], ServerState]:
        del round_number
        change = combine_robustly(config, [update.delta for update in gathering.held])
        return step_server(config.server, weights, change, state)

    return Aggregator(init=init, begin=begin, add=add, finish=finish)


def averaged(average: Weights, weights: Weights, keep: float, rounds: int) -> dict[str, Tensor]:
    """Return the exponential average of the global weights of so many rounds.

    Without the weights before the first round: with few rounds they would weigh most
    (the correction of bias of Kingma and Ba 2015, section 3). Post-processing, it costs no
    privacy.
    """
    share = (1 - keep) / (1 - keep**rounds)
    return {n: torch.lerp(average.get(n, value), value, share) for n, value in weights.items()}
