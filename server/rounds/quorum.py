"""Quorum: whether enough sites are there to start a round, and whether enough of them answered.

The first round waits, as long as a round may take, for sites that have not said yes or no; a
later one starts with the sites that are there, once they are a quorum.
"""

from __future__ import annotations

from collections.abc import Collection

from common.config.run_config import RunConfig
from common.platform.errors import RunFailed
from server.rounds.non_admission_reasons import Fault
from server.rounds.round_record import RoundRecord

#: What is wrong with an update that its site would compute again.
_OF_THE_TRAINING = frozenset({Fault.NOT_FINITE.value, Fault.TOO_LARGE.value})


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
    spoiled = [site for site, why in record.left_out.items() if why in _OF_THE_TRAINING]
    others = len(record.updates) + len(record.left_out) - len(spoiled)
    remedy = "Resume the run when enough sites can answer."
    if spoiled and others < wanted:
        remedy = (
            f"That comes of the training itself: {_loss_of(config)} is not finite or far too large "
            f"for patients of {', '.join(spoiled)}, or training.learning_rate is too large. "
            "Resuming would end here again: mend the loss or lower the rate, and start a new run."
        )
    message = (
        f"Round {record.round} got {len(record.updates)} usable updates, expected at least "
        f"{wanted} (aggregation.smallest_quorum). {reasons or 'Nobody was left out'}. {remedy}"
    )
    raise RunFailed(message)


def _loss_of(config: RunConfig) -> str:
    """Return what the training descends, as the configuration calls it."""
    names = config.extension_names({"tasks", "losses"})
    return (
        f"the loss of {', '.join(names)}" if names else f"the loss of task.kind={config.task.kind}"
    )
