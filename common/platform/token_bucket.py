"""Token bucket: so many at once, and then so many a second."""

from __future__ import annotations


class TokenBucket:
    """Full at first; it fills with time, up to `most` (at least one)."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second = per_second
        self._most = max(most, 1.0)
        self._there = self._most
        self._at = 0.0

    def take(self, now: float) -> float:
        """Take one and return 0, or return in how many seconds there is one.

        now is in seconds of a clock that does not go back; where it does, nothing is added.
        """
        passed = max(now - self._at, 0.0)
        self._there = min(self._most, self._there + passed * self._per_second)
        self._at = now
        if self._there < 1:
            return (1 - self._there) / self._per_second
        self._there -= 1
        return 0.0
