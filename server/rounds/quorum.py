"""Quorum: whether enough sites are there to start a round, and whether enough of them answered.

The first round of a process waits for sites that have said neither yes nor no; a later one starts
with the sites that are there, once they are a quorum. Whoever comes later joins the next round.

    a site reads its images           is waited for as long as a round may take
    it is away, or did not approve    two minutes from the quorum on
    run --wait                        all of them, for exchange.wait_hours
    fewer than a quorum               the same; after two minutes the run's place is the next run's
    the run waits for its turn        no time counts (server/service/run_queue.py)
"""

from __future__ import annotations

import math
from collections.abc import Collection

from common.config.run_config import RunConfig
from common.messages.refusals import PASSING
from common.platform.errors import RunFailed, SitesAway
from server.rounds.late_answers import awake
from server.rounds.non_admission_reasons import Fault
from server.rounds.round_record import RoundRecord

#: So long a quorum waits for a site that is away, or whose admin has not approved.
_ABSENT_SECONDS = 120.0
#: Why a site was left out that may answer the next time, from what it has made by then.
SILENT = "it did not answer"
_PASSES = frozenset({SILENT, Fault.LATE.value, *(reason.value for reason in PASSING)})
#: What is wrong with an update that its site would compute again.
_OF_THE_TRAINING = frozenset({Fault.NOT_FINITE.value, Fault.TOO_LARGE.value})


class Start:
    """When a process's first round starts without the sites that have said neither yes nor no."""

    def __init__(self, config: RunConfig, *, waits: bool) -> None:
        self._quorum = config.aggregation.smallest_quorum
        self._round = config.exchange.round_minutes * 60
        self._waits = waits
        self._began = awake()
        #: From then on the run is given up, if no quorum came about.
        self.gives_up = self._began + config.exchange.wait_hours * 3600
        self._enough_since = math.inf
        self._idle_since = math.inf  # since when nobody has done anything for the run

    def without(self, ready: Collection[str], *, working: bool) -> float:
        """Return when it starts with those that are ready; `working`: a site will answer yet."""
        if len(ready) < self._quorum:
            self._enough_since = math.inf
            return self.gives_up
        self._enough_since = min(self._enough_since, awake())
        if self._waits:
            return self.gives_up
        if working:
            return self._began + self._round
        return self._enough_since + min(_ABSENT_SECONDS, self._round)

    def gives_way(self, *, working: bool) -> bool:
        """Return whether it has waited so long that its place is better another run's."""
        if working and awake() < self._began + self._round:
            self._idle_since = math.inf
            return False
        self._idle_since = min(self._idle_since, awake())
        return awake() >= self._idle_since + min(_ABSENT_SECONDS, self._round)

    def is_in_line(self) -> None:
        """Note that its sites are there and other runs come first: it is not given up for that."""
        wait_seconds = self.gives_up - self._began
        self._began = awake()
        self.gives_up = self._began + wait_seconds


def check_quorum(config: RunConfig, record: RoundRecord) -> None:
    """Raise RunFailed when fewer updates were admitted than `aggregation.smallest_quorum`.

    SitesAway where sites that were late or away would make the quorum.
    """
    wanted = config.aggregation.smallest_quorum
    if len(record.updates) >= wanted:
        return
    reasons = "; ".join(f"{site}: {why}" for site, why in record.left_out.items())
    spoiled = [site for site, why in record.left_out.items() if why in _OF_THE_TRAINING]
    others = len(record.updates) + len(record.left_out) - len(spoiled)
    passing = [site for site, why in record.left_out.items() if why in _PASSES]
    away = len(record.updates) + len(passing) >= wanted
    remedy = (
        "It is asked again, of those that are there then."
        if away
        else "Resume the run when enough sites can answer."
    )
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
    raise SitesAway(message) if away else RunFailed(message)


def _loss_of(config: RunConfig) -> str:
    """Return what the training descends, as the configuration calls it."""
    names = config.extension_names({"tasks", "losses"})
    return (
        f"the loss of {', '.join(names)}" if names else f"the loss of task.kind={config.task.kind}"
    )
