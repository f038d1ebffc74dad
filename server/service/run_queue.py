"""Queue of runs: which of those that wait begins next, when, how many work at once, and with whom.

A run of higher priority goes before others that wait, among equals the one that was ordered first.

    it works                              it is not interrupted for another
    it has waited long for its sites      it gives its place to the next (server/rounds/quorum.py)
    its sites are there again             it is in the queue where it was, and begins once there is
                                          a place, and room at as many sites as it needs
    a site serves as many as it takes     a run begins without it where the others are enough, and
                                          takes it in once it has room; else it waits, also where
                                          it has begun, and holds no place and no site meanwhile
    several wait for one site             it is kept for the first of them

So no run holds what another waits for while it waits itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        self._at_work: dict[str, frozenset[str]] = {}  # the sites that each works with
        #: The sites that runs in the queue are ready to work with, and those of these runs that
        #: could not begin for want of room there.
        self._claims: dict[str, frozenset[str]] = {}
        self._shut_out: set[str] = set()

    def enter(self, entry: RunEntry) -> None:
        """Let a run wait for its turn."""
        self._waiting[entry.run] = entry

    def leave(self, run: str) -> None:
        """Note that a run ended, or waits for what is no place: others may have its own."""
        self._waiting.pop(run, None)
        self._at_work.pop(run, None)
        self._claims.pop(run, None)
        self._shut_out.discard(run)

    def is_at_work(self, run: str) -> bool:
        """Return whether it has a place."""
        return run in self._at_work

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
        self.leave(run)
        self._at_work[run] = frozenset()
        return ""

    def work_with(
        self, entry: RunEntry, ready: Mapping[str, int | None], least: int
    ) -> tuple[frozenset[str], str]:
        """Return the sites that a run has from now on, at least so many, or why it has none.

        `ready` has how many runs each site that could begin serves at once, None for any number.
        """
        run = entry.run
        own = self._at_work.get(run, frozenset())
        full = {s for s, limit in ready.items() if s not in own and self._is_full(s, limit, entry)}
        free = frozenset(ready) - full
        if len(free) < least:
            self._step_back(entry, frozenset(ready))
            return frozenset(), self._who_is_busy({s: ready[s] for s in full}, least)
        self._shut_out.discard(run)
        if run not in self._at_work:
            self._waiting.setdefault(run, entry)
            self._claims[run] = frozenset(ready)
            if why := self.why_waiting(run):
                return frozenset(), why
        self._at_work[run] = own | free
        return free, ""

    def _step_back(self, entry: RunEntry, claims: frozenset[str]) -> None:
        """Let others have a run's place and sites until there is room where it needs it."""
        self.leave(entry.run)
        self.enter(entry)
        self._claims[entry.run] = claims
        self._shut_out.add(entry.run)

    def _is_full(self, site: str, limit: int | None, entry: RunEntry) -> bool:
        """Return whether a site has no room for a run beside those that come first."""
        if limit is None:
            return False
        first = [
            run
            for run, sites in self._claims.items()
            if site in sites and _rank(self._waiting[run]) < _rank(entry)
        ]
        return len(self._at_work_at(site, entry.run)) + len(first) >= limit

    def _at_work_at(self, site: str, but: str) -> list[str]:
        return sorted(run for run, sites in self._at_work.items() if site in sites and run != but)

    def _who_is_busy(self, full: Mapping[str, int | None], least: int) -> str:
        told = "; ".join(
            f"{site} serves {limit} at once (runs_at_once in its site.yaml), at work there: "
            f"{', '.join(self._at_work_at(site, '')) or 'none, and one before it in the queue'}"
            for site, limit in sorted(full.items())
        )
        return f"It waits for room at its sites, of which it needs {least}: {told}."

    def _before(self, entry: RunEntry) -> int:
        """Return how many runs that could begin have their turn before this one."""
        due = [e for e in self._waiting.values() if not e.starts_at or e.starts_at <= self._clock()]
        first = [e for e in due if _rank(e) < _rank(entry)]
        return len([e for e in first if e.run not in self._shut_out])


def _rank(entry: RunEntry) -> tuple[int, str]:
    return -entry.priority, entry.created
