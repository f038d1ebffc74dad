"""A site that was asked in a phase: when to ask again and when to stop waiting."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from common.messages.transfer_progress import Transfer
from server.rounds.late_answers import awake
from server.transport.incoming_answer import Arriving
from server.transport.runtime import NodeFacts


@dataclass
class Asked:
    """What is known of one site in one phase."""

    names: set[str] = field(default_factory=set)  # of the messages it was sent
    at: float = 0.0  # when it was sent the last, on the clock of the run's process
    activated_at: str = ""  # of its daemon, then
    again: bool = False  # it was offline, or was cut off; ask when it is there
    gone_since: float = math.inf  # when it was first seen to be offline, on the same clock
    size: int = 0  # bytes of the request
    answer: Arriving | None = None

    @property
    def wants_answer(self) -> bool:
        """Return whether an answer that is announced is to be fetched."""
        return self.answer is None or self.answer.stands_still

    def is_due(self, node: NodeFacts, patience: float) -> bool:
        """Return whether a site that is online is to be asked (again)."""
        if not self.wants_answer:
            return False
        if not self.names or self.again or node.activated_at != self.activated_at:
            return True
        return awake() - self.at > patience

    def transfer(self, node: NodeFacts | None) -> str:
        """Return how far its request or its answer is, in words; nothing between the two."""
        if self.answer is not None:
            return self.answer.transfer.words
        if node is None or node.fetched is None:
            return ""
        return Transfer(done=node.fetched, total=self.size, seconds=awake() - self.at).words

    def sent(self, name: str, node: NodeFacts, size: int) -> None:
        """Note that it was sent a message."""
        self.names.add(name)
        self.size = size
        self.at, self.again, self.activated_at = awake(), False, node.activated_at

    def seen(self, *, online: bool) -> None:
        """Note whether it is online."""
        self.gone_since = math.inf if online else min(self.gone_since, awake())

    def is_given_up(self, patience: float) -> bool:
        """Return whether it has been offline for so long that a quorum goes on without it."""
        return awake() - self.gone_since > patience
