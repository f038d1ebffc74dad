"""An extension's rule of aggregation: it sees what sites released, and is seeded by the round.

Every update of a round is held in memory: such a rule may compare sites with each other.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from common.config.parts.extension import ExtensionUse
from common.config.run_config import Aggregation
from common.data.weights import Weights
from common.extensions.aggregators import combine_of, combined
from common.extensions.contract import SiteChange
from common.extensions.loading import Pins
from common.messages.wire import SiteUpdate
from common.platform.errors import ExtensionRefused, RunFailed
from server.aggregation.rules import Aggregator, Gathering, ServerState, weight_of
from server.aggregation.server_optimizer import init_server, step_server

_PREFIX = "extension/"


def extension_aggregator(config: Aggregation, pins: Pins) -> Aggregator:
    """Return the rule that an extension gives; ExtensionRefused unless it keeps the contract."""
    use = ExtensionUse(name=config.rule, arguments=config.arguments)
    combine = combine_of(use, pins)

    def add(gathering: Gathering, update: SiteUpdate) -> None:
        gathering.held.append(update)
        gathering.sites += 1

    def finish(
        gathering: Gathering, weights: Weights, state: ServerState, round_number: int
    ) -> tuple[dict[str, Tensor], ServerState]:
        changes = [
            SiteChange(site=u.site, weight=weight_of(config, u.site), delta=dict(u.delta))
            for u in gathering.held
        ]
        try:
            found = combined(use.name, combine, changes, _of(state), round_number)
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
