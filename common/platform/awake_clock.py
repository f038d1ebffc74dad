"""Clock that stands still while its process does.

A machine that was suspended, a process that was stopped and one that got no turn for long have
not waited for anybody. Whoever waits looks at the clock in each turn of a loop; what lies between
two looks beyond the longest that a turn takes was a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class AwakeClock:
    """Seconds in which its process was awake, from an arbitrary beginning."""

    def __init__(
        self, longest_turn_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._longest = longest_turn_seconds
        self._clock = clock
        self._seen = clock()
        self._awake = 0.0

    def __call__(self) -> float:
        """Look at it."""
        now = self._clock()
        since, self._seen = now - self._seen, now
        self._awake += min(since, self._longest)
        return self._awake
