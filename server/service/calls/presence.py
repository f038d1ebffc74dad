"""Sites that are here: whoever calls, or waits in a pull, told to Flower together.

Flower counts a site as online for twenty seconds after each heartbeat, a transaction each. A pull
that waits is as good a sign as a heartbeat, and one statement for all sites every few seconds is
enough. A site that comes back after a while is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from common.platform.logs import log

#: Between two tellings. Flower is told of a heartbeat each ten seconds, and lets two pass.
TELLING_SECONDS = 3.0
#: A site of which nothing was told for so long may count as offline.
_STALE_SECONDS = 15.0


class Presence:
    """Who is here; every method but `tell` is called in the event loop."""

    def __init__(self, tell: Callable[[Collection[int]], None]) -> None:
        self._tell = tell
        self._seen: set[int] = set()
        self._waiting: Counter[int] = Counter()
        self._gone: set[int] = set()  # said good-bye, though a pull may wait yet
        self._told: dict[int, float] = {}
        self._news = asyncio.Event()

    def seen(self, node: int) -> None:
        """Note that a site has called."""
        self._seen.add(node)
        self._gone.discard(node)
        if time.monotonic() - self._told.get(node, 0.0) > _STALE_SECONDS:
            self._news.set()

    def gone(self, node: int) -> None:
        """Note that a site says good-bye."""
        self._seen.discard(node)
        self._gone.add(node)
        self._told.pop(node, None)

    @contextlib.contextmanager
    def waiting(self, node: int) -> Iterator[None]:
        """Count a site as here until the block ends."""
        self.seen(node)
        self._waiting[node] += 1
        try:
            yield
        finally:
            self._waiting[node] -= 1
            if not self._waiting[node]:
                del self._waiting[node]

    async def keep_telling(self) -> None:
        """Tell of everybody who is here, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), TELLING_SECONDS)
            self._news.clear()
            here = (self._seen | set(self._waiting)) - self._gone
            self._seen = set()
            if not here:
                continue
            now = time.monotonic()
            try:
                await asyncio.to_thread(self._tell, here)
            except Exception as error:  # noqa: BLE001 - a full disk, mostly; the next time may do
                log(__name__).error("cannot note who is online", why=str(error))
                continue
            self._told |= dict.fromkeys(here, now)
