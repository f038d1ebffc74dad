"""Run status file, rewritten at every change.

It is derived, never read back by the run, and may be deleted; the journal is the record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from common.config.privacy import Known

#: A deadline that moves by less is the same: it is told to the second.
_MOVED_SECONDS = 2.0

Phase = Literal[
    "starting", "approval", "counting", "training", "aggregating", "saving", "evaluating", "over"
]
SiteState = Literal["ready", "asked", "sending", "answered", "refused", "offline", "late"]
#: What a phase waits for, in words.
_WAITS: dict[str, str] = {
    "approval": "approval",
    "counting": "descriptions of cohorts",
    "training": "updates",
    "evaluating": "reports",
}


@dataclass
class SiteLine:
    """One site's line."""

    state: SiteState = "offline"
    since: str = ""  # ISO time, UTC
    why: str = ""
    bytes_sent: int = 0  # to the site
    bytes_received: int = 0  # from the site
    transfer: str = ""  # how far what is under way is, either way
    epsilon: float | None = None  # of this run so far, at its own delta
    common_epsilon: float | None = None  # the same at delta 1e-5
    patients: int | None = None
    patients_are: Known = "exact"


@dataclass
class Board:
    """The file status.json of a run."""

    path: Path
    run: str
    rounds: int
    quorum: int
    state: str = "running"
    phase: Phase = "starting"
    round: int = 0
    since: str = ""
    deadline: str = ""
    message: str = ""
    privacy: str = ""  # what each epsilon is of
    waits: bool = False  # for every site, before the first round
    sites: dict[str, SiteLine] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)
    bytes_by_round: list[list[int]] = field(default_factory=list)
    _written: str = ""

    def begin(self, phase: Phase, number: int, deadline: float | None = None) -> None:
        """Say what the run does now, and until when it waits for sites."""
        self.phase, self.round, self.since = phase, number, now()
        self.deadline = "" if deadline is None else _iso(deadline)
        self.write()

    def wait_until(self, deadline: float) -> None:
        """Say until when it waits, where that is not what was said."""
        said = datetime.fromisoformat(self.deadline).timestamp() if self.deadline else 0.0
        if abs(deadline - said) > _MOVED_SECONDS:
            self.deadline = _iso(deadline)

    def site(self, name: str, state: SiteState, why: str = "") -> None:
        """Say where a site stands; the time is kept while that stays the same."""
        line = self.sites.setdefault(name, SiteLine())
        if (line.state, line.why) != (state, why):
            line.state, line.why, line.since = state, why, now()
            line.transfer = ""

    def transfer(self, name: str, words: str) -> None:
        """Say how far a site's request or answer is."""
        self.sites.setdefault(name, SiteLine()).transfer = words

    def count(self, name: str, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes of a site, for the run and for the round."""
        line = self.sites.setdefault(name, SiteLine())
        line.bytes_sent += sent
        line.bytes_received += received
        while len(self.bytes_by_round) <= self.round:
            self.bytes_by_round.append([0, 0])
        self.bytes_by_round[self.round][0] += sent
        self.bytes_by_round[self.round][1] += received

    def end(self, state: str, message: str) -> None:
        """Say how the run ended."""
        self.state, self.message = state, message
        self.begin("over", self.round)

    @property
    def sentence(self) -> str:
        """What the run waits for, e.g. waiting for updates of 2 of 3 sites: north, since 14:02."""
        if self.phase == "over":
            return self.message or self.state
        if self.phase not in _WAITS:
            return f"{self.phase}, round {self.round} of {self.rounds}"
        if not self.sites:
            return f"waiting for a site: none is accepted yet, since {_clock(self.since)}"
        open_ = {n: s for n, s in self.sites.items() if s.state in _OPEN[self.phase]}
        what = _WAITS[self.phase]
        if not open_:
            return f"round {self.round} of {self.rounds}: all {what} are here"
        names = ", ".join(f"{n} ({_shown(s)})" for n, s in sorted(open_.items()))
        of = f"{len(open_)} of {len(self.sites)} sites"
        said = f"waiting for {what} of {of}: {names}, since {_clock(self.since)}"
        if self.phase != "approval" or not self.deadline:
            return said
        return f"{said}; {self._until(sorted(open_))}"

    def _until(self, missing: Sequence[str]) -> str:
        """Return until when sites are waited for before a round, and what happens then."""
        at = _clock(self.deadline)
        ready = sum(line.state == "ready" for line in self.sites.values())
        if ready < self.quorum:
            return f"{ready} of the {self.quorum} that it takes are ready, given up at {at}"
        if self.waits:
            return f"--wait: until {at}"
        return f"starts without {', '.join(missing)} at {at} (--wait keeps waiting)"

    def write(self) -> None:
        """Write the file if anything changed; a reader sees the old one or the new one."""
        facts = {
            "run": self.run,
            "state": self.state,
            "phase": self.phase,
            "round": self.round,
            "rounds": self.rounds,
            "quorum": self.quorum,
            "since": self.since,
            "deadline": self.deadline,
            "message": self.message,
            "privacy": self.privacy,
            "sentence": self.sentence,
            "sites": {n: vars(s) for n, s in sorted(self.sites.items())},
            "bytes_by_round": self.bytes_by_round,
            "metrics": self.metrics,
        }
        text = json.dumps(facts)
        if text != self._written:
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.path)
            self._written = text


#: States of sites that a phase still waits for.
_OPEN: dict[str, Sequence[SiteState]] = {
    "approval": ("offline", "asked"),
    "counting": ("asked", "sending", "offline"),
    "training": ("asked", "sending", "offline"),
    "evaluating": ("asked", "sending", "offline"),
}


def now() -> str:
    """Return the time as ISO text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _shown(line: SiteLine) -> str:
    return line.why or line.state


def _clock(iso: str) -> str:
    if not iso:
        return "?"
    at = datetime.fromisoformat(iso).astimezone()
    today = at.date() == datetime.now(UTC).astimezone().date()
    return at.strftime("%H:%M" if today else "%a %H:%M")
