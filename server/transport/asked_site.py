"""A site that was asked in a phase: when to ask again and when to stop waiting."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from server.transport.incoming_answer import Arriving
from server.transport.runtime import NodeFacts


@dataclass
class Asked:
    """What is known of one site in one phase."""

    names: set[str] = field(default_factory=set)  # of the messages it was sent
    at: float = 0.0  # when it was sent the last, on the monotonic clock
    activated_at: str = ""  # of its daemon, then
    again: bool = False  # it was offline, or was cut off; ask when it is there
    gone_since: float = math.inf  # when it was first seen to be offline, on the monotonic clock
    answer: Arriving | None = None

    def is_due(self, node: NodeFacts, patience: float) -> bool:
        """Return whether a site that is online is to be asked (again)."""
        if not self.names or self.again or node.activated_at != self.activated_at:
            return True
        return time.monotonic() - self.at > patience

    def sent(self, name: str, node: NodeFacts) -> None:
        """Note that it was sent a message."""
        self.names.add(name)
        self.at, self.again, self.activated_at = time.monotonic(), False, node.activated_at

    def seen(self, *, online: bool) -> None:
        """Note whether it is online."""
        self.gone_since = math.inf if online else min(self.gone_since, time.monotonic())

    def is_given_up(self, patience: float) -> bool:
        """Return whether it has been offline for so long that a quorum goes on without it."""
        return self.answer is None and time.monotonic() - self.gone_since > patience
