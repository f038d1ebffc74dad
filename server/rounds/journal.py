"""Journal of a run, in a chain of hashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from common.platform.hash_chain import ChainedLog, Fact, lines, now, verify

__all__ = ["Journal", "verify"]


class Journal:
    """A run's events, each a line of a chained log."""

    def __init__(self, path: Path, *, clock: Callable[[], str] = now) -> None:
        self.path = path
        self._log = ChainedLog(path, clock=clock)

    def write(self, event: str, facts: Mapping[str, Fact]) -> None:
        """Append one line durably; facts hold no nan or infinity, which JSON does not have."""
        self._log.append({**facts, "event": event})

    def rounds(self) -> set[int]:
        """Return the rounds that have a line."""
        events = (line for line in lines(self.path) if line["event"] == "round")
        return {number for line in events if isinstance(number := line["round"], int)}
