"""Deadlines of answers: when one is late, and how long a silent site is waited for.

One setting, `exchange.round_minutes`, times a phase; everything else follows from it:

    an answer is taken          until the phase's deadline, then it is late, and not admitted
    a silent site               is asked again after a sixth of it (at least 20 s)
    a site that is offline      is given up after as long, where the others are a quorum
    a description of cohorts    is waited for as long, and no longer

The clock is looked at while sites are waited for (server/transport/flower_sites.py); it stands
still while this process or the service does, and each deadline moves on with it. What comes
after a minute more is refused before it is read (server/service/answer_allowances.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from common.platform.awake_clock import AwakeClock
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted

#: A silent site is asked again, and one that is offline given up, after this part of the deadline.
_PARTS_OF_DEADLINE = 6
_SHORTEST_PATIENCE = 20.0
#: Of a run's process. A look for answers takes half a second, one at a service that is away 30.
awake = AwakeClock(5.0)


@dataclass(frozen=True)
class Deadline:
    """The end of a phase, on the clock of a run's process."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline of a phase that begins now."""
        return cls(awake() + seconds)

    @property
    def left(self) -> float:
        """Seconds until an answer is late; negative once it is."""
        return self.at - awake()

    @property
    def ends(self) -> float:
        """When that is, in seconds since 1970, where nothing stands still until then."""
        return time.time() + self.left

    @property
    def is_over(self) -> bool:
        """Whether an answer that comes now is late."""
        return self.left <= 0


def patience_of(round_seconds: float) -> float:
    """Return how many seconds of silence are borne in a phase of this length."""
    return max(round_seconds / _PARTS_OF_DEADLINE, _SHORTEST_PATIENCE)


def late(site: str, why: str) -> NotAdmitted:
    """Return what becomes of a site whose answer had not come in time."""
    return NotAdmitted(site=site, fault=Fault.LATE, detail=why, used_up=True)
