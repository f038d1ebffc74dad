"""Which messages were answered since their run looked, so that a look is at these alone.

Each answer wakes its run, and Flower's look at a message costs some milliseconds, answered or not:
to look at all that is open each time would make a round's cost the square of its sites. What nobody
announces, a site that is offline or a message whose time is over, is found in a look at everything,
once in a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

#: Between two looks of a run at all its messages.
LOOK_SECONDS = 1.0
#: An answer is remembered so long; a look at everything has found it by then.
_KEPT_SECONDS = 60.0


class Replies:
    """Answered messages by name, and when each run looked at all of its messages."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._came: dict[str, float] = {}
        self._looked: dict[str, float] = {}

    def came(self, asked: str) -> None:
        """Note that a message is answered; the answer is in the database."""
        self._came[asked] = self._clock()

    def due(self, run: str, asked: Collection[str]) -> set[str]:
        """Return which of a run's messages to look at now; `run` is anything that tells it apart.

        A message is due until `taken`, so that an answer which could not be read is not lost.
        """
        now = self._clock()
        if now - self._looked.get(run, -LOOK_SECONDS) < LOOK_SECONDS:
            return {name for name in asked if name in self._came}
        for noted in (self._came, self._looked):
            for name in [n for n, at in list(noted.items()) if now - at > _KEPT_SECONDS]:
                noted.pop(name, None)
        self._looked[run] = now
        return set(asked)

    def taken(self, asked: str) -> None:
        """Note that the answer to a message was given to its run."""
        self._came.pop(asked, None)
