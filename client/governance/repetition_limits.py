"""Limits on what a coordinator can make a site write by repeating itself.

    the same again            written once at once, then once in five minutes with the number since,
                              and where it may wait so long, ever more seldom, to once a day
    ever another              so many at once and one a minute each; the rest is counted together
    writing fails             as if it had not come: it is written when it comes again
    the process is killed     what came again since the last line is not counted

Public: DAY_SECONDS, MANY_NAMES, Allowance, Names, Repetitions, Seldom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from common.platform.token_bucket import TokenBucket

#: What comes again is written once in so many seconds.
SELDOM_SECONDS = 300.0
DAY_SECONDS = 86_400.0
#: Things that are counted apart; the one that was longest silent is written and forgotten.
_MOST = 1000
#: Names of runs that a coordinator may begin at once, and how often another.
_RUNS_AT_ONCE, _RUN_SECONDS = 200, 60.0
MANY_NAMES = f"{_RUNS_AT_ONCE} runs were begun at once; another may begin each {_RUN_SECONDS:g} s"
#: Names that are known; one that was forgotten counts as another.
_MOST_NAMES = 10_000
#: Log lines on ever another event.
_EVENTS_AT_ONCE, _EVENT_SECONDS = 100, 60.0

T = TypeVar("T")
Clock = Callable[[], float]
#: Writes what happened, and how often since it was written last.
Write = Callable[[Mapping[str, object], int], None]


class Allowance:
    """So many at once, and then one in so many seconds."""

    def __init__(self, at_once: int, one_in_seconds: float, clock: Clock = time.monotonic) -> None:
        self._bucket, self._clock = TokenBucket(1 / one_in_seconds, at_once), clock

    def take(self) -> bool:
        """Return whether there was one left, and take it."""
        return self._bucket.take(self._clock()) == 0


class Names:
    """Names of runs; what one leaves on the disk (charges, rows, answers) is bounded."""

    def __init__(self) -> None:
        self._more = Allowance(_RUNS_AT_ONCE, _RUN_SECONDS)
        self._begun: dict[str, None] = {}  # the newest last

    def may_begin(self, name: str) -> bool:
        """Return whether a name is known, or one of those that may still begin."""
        if name not in self._begun and not self._more.take():
            return False
        self._begun[name] = self._begun.pop(name, None)
        if len(self._begun) > _MOST_NAMES:
            del self._begun[next(iter(self._begun))]
        return True


@dataclass
class _Counted(Generic[T]):
    what: T
    written_at: float | None = None
    count: int = 0  # since it was written
    every: float = SELDOM_SECONDS  # between two writings


class Repetitions(Generic[T]):
    """Things by key, the last of each kept until it is written with its number.

    Between two writings of one thing the time doubles, to `longest` seconds at most.
    """

    def __init__(self, clock: Clock = time.monotonic, longest: float = SELDOM_SECONDS) -> None:
        self._clock, self._longest = clock, longest
        self._counted: dict[str, _Counted[T]] = {}  # the longest silent first

    def __contains__(self, key: str) -> bool:
        """Return whether it came lately."""
        return key in self._counted

    def add(self, key: str, what: T, write: Callable[[T, int], None]) -> None:
        """Count it, and write what is due; this very one before it returns, if it is due."""
        known = self._counted.pop(key, None)
        own = self._counted[key] = known or _Counted(what)
        before, own.what, own.count = own.what, what, own.count + 1
        try:
            self._write_due(write)
        except BaseException:
            own.what, own.count = before, max(own.count - 1, 0)
            if own.written_at is None:
                del self._counted[key]
            raise

    def rest(self, write: Callable[[T, int], None]) -> None:
        """Write what was counted and is in no line yet."""
        for one in self._counted.values():
            _write(one, write, self._clock())

    def _write_due(self, write: Callable[[T, int], None]) -> None:
        now = self._clock()
        late = list(self._counted)[: max(len(self._counted) - _MOST, 0)]
        for key, one in list(self._counted.items()):
            is_old = one.written_at is None or now - one.written_at >= one.every
            if key in late or (is_old and not one.count):
                del self._counted[key]
            if is_old or key in late:
                again = one.written_at is not None and one.count > 0
                _write(one, write, now)
                one.every = min(one.every * 2, self._longest) if again else one.every


def _write(one: _Counted[T], write: Callable[[T, int], None], now: float) -> None:
    if one.count:
        write(one.what, one.count)
        one.written_at, one.count = now, 0


class Seldom:
    """Tells of events; what a coordinator repeats does not push other lines out of a log."""

    def __init__(self, write: Write, clock: Clock = time.monotonic) -> None:
        self._write = write
        self._events: Repetitions[Mapping[str, object]] = Repetitions(clock)
        self._others = Allowance(_EVENTS_AT_ONCE, _EVENT_SECONDS, clock)

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        """Tell it now, or count it."""
        key = f"{event} {facts!r:.2000}"
        if key not in self._events and not self._others.take():
            key = event
        self._events.add(key, {"event": event, **facts}, self._write)

    def rest(self) -> None:
        """Tell what was counted only."""
        self._events.rest(self._write)
