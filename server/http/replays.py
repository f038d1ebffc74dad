"""Replay protection: each signed request is taken once.

A number is remembered for as long as its signature would be taken. Where a site sends more than
fit, the oldest are forgotten, and whatever was signed no later than they were is refused: what is
forgotten can never be taken again. A process that begins takes nothing that was signed before it.
"""

from __future__ import annotations

import heapq

#: Of one site: more than 300 requests a second for as long as a signature is good.
MOST_NUMBERS = 100_000


class Replays:
    """The numbers of one site's requests."""

    def __init__(self, *, began: float, lasts_seconds: float, most: int = MOST_NUMBERS) -> None:
        self._floor = began  # nothing that was signed before is taken
        self._lasts_seconds = lasts_seconds
        self._most = most
        self._numbers: set[str] = set()
        self._by_time: list[tuple[float, str]] = []

    def takes(self, number: str, signed_at: float, now: float) -> bool:
        """Return whether a request comes for the first time, and remember it."""
        self._forget(now)
        if number in self._numbers or signed_at <= self._floor:
            return False
        self._numbers.add(number)
        heapq.heappush(self._by_time, (signed_at, number))
        if len(self._by_time) > self._most:
            self._drop_oldest()
        return True

    def _forget(self, now: float) -> None:
        while self._by_time and self._by_time[0][0] < now - self._lasts_seconds:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        signed_at, number = heapq.heappop(self._by_time)
        self._floor = max(self._floor, signed_at)
        self._numbers.discard(number)
