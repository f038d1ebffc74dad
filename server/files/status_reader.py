"""Status of a run, read from its files: run.json, status.json, rounds, results.

A file may be missing, as before the first round, or old, as after a crash: whoever reads
takes what is there.

Public: RunView, RunFacts, RunStatus, SiteStatus, RoundFacts, view_of, newest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.platform.errors import ExitCode
from server.files.folder import RunFolder

#: Rounds that are told of, and the part of the journal in which they are looked for.
_ROUNDS = 6
_TAIL_BYTES = 256 * 1024


class _Facts(BaseModel):
    """What a newer or older release wrote more, or less, is no fault."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RunFacts(_Facts):
    """run.json, which the service writes."""

    run: str
    state: str = "waiting"
    message: str = ""
    created: str = ""  # ISO time
    exit_code: int | None = None  # of the run's process, once it has ended


class SiteStatus(_Facts):
    """One site in status.json."""

    state: str = "offline"
    since: str = ""  # ISO time
    why: str = ""
    bytes_sent: int = 0  # to the site
    bytes_received: int = 0  # from the site
    transfer: str = ""  # how far what is under way is: 48 of 94 MB, 9 min left
    epsilon: float | None = None
    common_epsilon: float | None = None  # at delta 1e-5
    patients: int | None = None
    patients_are: str = ""  # agreed or exact; empty in what an older release wrote


class RunStatus(_Facts):
    """status.json, which the run's own process writes."""

    state: str = "running"
    phase: str = "starting"
    round: int = 0
    rounds: int = 0
    quorum: int = 0
    since: str = ""
    deadline: str = ""
    message: str = ""
    privacy: str = ""  # what each epsilon is of
    sentence: str = ""
    sites: dict[str, SiteStatus] = Field(default={})
    bytes_by_round: tuple[tuple[int, int], ...] = ()
    metrics: dict[str, object] = Field(default={})


class RoundFacts(_Facts):
    """One round's line of the journal."""

    round: int
    at: str
    updates: tuple[str, ...] = ()
    left_out: dict[str, str] = Field(default={})
    score: float | None = None
    metrics: dict[str, object] = Field(default={})  # on validation patients, where it was measured


class RunView(_Facts):
    """All of it."""

    facts: RunFacts
    status: RunStatus | None = None
    rounds: tuple[RoundFacts, ...] = ()  # the last, oldest first
    tested: dict[str, object] = Field(default={})  # metrics on test patients, at the end
    cohort: str = ""  # what the sites' cohorts come to, in a line
    exported: bool = False  # its bundle is in its folder

    @property
    def name(self) -> str:
        """The run."""
        return self.facts.run

    @property
    def is_over(self) -> bool:
        """Whether nobody works on it any more."""
        return self.facts.state not in {"waiting", "running"}

    @property
    def exit_code(self) -> int:
        """What a command that waited for the run says: that of its process, where it is known."""
        if self.facts.exit_code is not None and self.facts.exit_code >= 0:
            return self.facts.exit_code
        match self.facts.state:
            case "done":
                return ExitCode.DONE
            case "stopped" | "interrupted":
                return ExitCode.INTERRUPTED
            case _:
                return ExitCode.RUN_FAILED


def view_of(place: RunFolder) -> RunView:
    """Return what the run's folder tells."""
    facts, status = _read(place.run), _read(place.status)
    lines = [line for line in _last_lines(place.journal) if line.get("event") == "round"]
    content = {
        "facts": {"run": place.path.name, **facts},
        "status": status or None,
        "rounds": lines[-_ROUNDS:],
        "tested": _read(place.results).get("metrics") or {},
        "cohort": str(_read(place.cohort).get("line") or ""),
        "exported": (place.bundle / "card.json").is_file(),
    }
    try:
        return RunView.model_validate(content)
    except ValidationError:  # status.json and the journal's end are for looking at, no more
        return RunView(facts=RunFacts(run=place.path.name, state=str(facts.get("state", "?"))))


def newest(views: Iterable[RunView]) -> RunView | None:
    """Return the run that somebody wants to see who names none: one at work, else the last."""
    return max(views, key=lambda view: (not view.is_over, view.facts.created), default=None)


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_lines(path: Path) -> list[dict[str, object]]:
    """Return the last whole lines; a journal of a thousand rounds is not read twice a second."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            content = file.read()
    except OSError:
        return []
    found = []
    for line in content.split(b"\n")[0 if size <= _TAIL_BYTES else 1 : -1]:
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict):
            found.append(facts)
    return found
