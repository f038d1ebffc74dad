"""Quorum: whether enough sites are there to start a round, and whether enough of them answered.

The first round waits, as long as a round may take, for sites that have not said yes or no; a
later one starts with the sites that are there, once they are a quorum.
"""

from __future__ import annotations

from collections.abc import Collection

from common.config.run_config import RunConfig
from common.platform.errors import RunFailed
from server.rounds.round_record import RoundRecord


def may_start(config: RunConfig, ready: Collection[str], *, settled: bool) -> bool:
    """Return whether a round starts with the sites that are ready.

    `settled`: nobody is waited for any more.
    """
    return settled and len(ready) >= config.aggregation.smallest_quorum


def check_quorum(config: RunConfig, record: RoundRecord) -> None:
    """Raise RunFailed when fewer updates were admitted than `aggregation.smallest_quorum`."""
    wanted = config.aggregation.smallest_quorum
    if len(record.updates) >= wanted:
        return
    reasons = "; ".join(f"{site}: {why}" for site, why in record.left_out.items())
    message = (
        f"Round {record.round} got {len(record.updates)} usable updates, expected at least "
        f"{wanted} (aggregation.smallest_quorum). {reasons or 'Nobody was left out'}. "
        "Resume the run when enough sites can answer."
    )
    raise RunFailed(message)
