"""Queue of runs: which of those that wait begins next, when, and how many work at once.

A run of higher priority goes before others that wait, among equals the one that was ordered first.
One that works is not interrupted for another, and keeps its place while it waits for its sites.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from server.service.run_book import RunEntry


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class RunQueue:
    """The runs of a service that wait or work; `at_once` may change, None is without bound."""

    def __init__(self, at_once: int | None, clock: Callable[[], datetime] = now) -> None:
        self.at_once = at_once
        self._clock = clock
        self._waiting: dict[str, RunEntry] = {}
        self._at_work: set[str] = set()

    def enter(self, entry: RunEntry) -> None:
        """Let a run wait for its turn."""
        self._waiting[entry.run] = entry

    def leave(self, run: str) -> None:
        """Note that a run ended, or does not wait any more."""
        self._waiting.pop(run, None)
        self._at_work.discard(run)

    def why_waiting(self, run: str) -> str:
        """Return why a run waits, or nothing: then it has its turn, from now on."""
        entry = self._waiting[run]
        if entry.starts_at is not None and entry.starts_at > self._clock():
            return f"It starts at {entry.starts_at.astimezone():%Y-%m-%d %H:%M}."
        before = self._before(entry)
        if self.at_once is not None and len(self._at_work) + before >= self.at_once:
            at_work = ", ".join(sorted(self._at_work)) or "none"
            return (
                f"It waits for its turn: at work {at_work}; {before} before it in the queue; at "
                f"most {self.at_once} at once (runs_at_once in coordinator.yaml)."
            )
        del self._waiting[run]
        self._at_work.add(run)
        return ""

    def _before(self, entry: RunEntry) -> int:
        """Return how many runs that are due have their turn before this one."""
        due = [e for e in self._waiting.values() if not e.starts_at or e.starts_at <= self._clock()]
        return sorted(due, key=_rank).index(entry)


def _rank(entry: RunEntry) -> tuple[int, str]:
    return -entry.priority, entry.created
