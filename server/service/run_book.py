"""Book of the ordered runs and their state.

waiting -> running -> done | failed | stopped
waiting <- running                          the service ends; it goes on when that starts again
           running <- failed | stopped      resume
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from common.config.parts.section import Part
from common.config.run_config import RunConfig
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError, StateDamaged
from common.platform.logs import log
from server.files.folder import Folder

#: "interrupted" is what earlier releases wrote where a service ended; `resume` goes on with it.
RunState = Literal["waiting", "running", "done", "failed", "stopped", "interrupted"]
ACTIVE: frozenset[RunState] = frozenset({"waiting", "running"})
#: Why a run waits.
WITH_THE_SERVICE = (
    "The service was stopped. The run goes on from its last saved round when that starts again: "
    "wardround-coordinator start"
)
EARLIER_PROCESS = "It goes on when an earlier process of it has saved its round and ended."

_NUMBERED = re.compile(r"^(?P<name>.*)-(?P<number>[0-9]+)$")


class Ordered(Part):
    """What a run is ordered with, beside its configuration."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    #: Who may take part; empty: every accepted site.
    sites: tuple[str, ...] = ()
    #: It waits for every one of them before the first round.
    waits: bool = False
    #: Among the runs that wait: the higher goes first.
    priority: int = Field(default=0, ge=-100, le=100)
    #: It begins no earlier.
    starts_at: AwareDatetime | None = None


class RunEntry(Ordered):
    """run.json: what was ordered, and where it stands."""

    model_config = ConfigDict(extra="ignore")

    run: str
    state: RunState = "waiting"
    message: str = ""
    created: str
    #: Of the run's process, once it has ended.
    exit_code: int | None = None
    #: How often it was killed, or its service was, since this round was saved.
    kills: int = 0
    kills_after: int = 0
    #: An operator asked it to stop, and its process may still be saving.
    stopping: bool = False

    def killed(self, last_round: int) -> RunEntry:
        """Return the entry with a kill more, of those since its last round was saved."""
        kills = self.kills if self.kills_after == last_round else 0
        return self.model_copy(update={"kills": kills + 1, "kills_after": last_round})

    def moved(self, state: RunState, message: str = "", exit_code: int | None = None) -> RunEntry:
        """Return the entry in another state."""
        return self.model_copy(update={"state": state, "message": message, "exit_code": exit_code})


class RunBook:
    """All runs of a coordinator; each entry is written durably."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def order(self, config: RunConfig, ordered: Ordered) -> RunEntry:
        """Note a new run under a name of its own."""
        name = self._free_name(config.name)
        place = self._folder.run(name)
        entry = RunEntry(
            run=name,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **{field: getattr(ordered, field) for field in Ordered.model_fields},
        )
        replace_durably(place.config, config.in_force().to_yaml().encode())
        self.write(entry)  # last: with it, the run exists
        return entry

    def read(self, name: str) -> RunEntry:
        """Return a run; ConfigurationError when there is none of this name."""
        place = self._folder.run(name)
        try:
            return RunEntry.model_validate_json(place.run.read_bytes())
        except FileNotFoundError as error:
            known = ", ".join(self._folder.run_names()[-5:]) or "none yet"
            message = f"There is no run {name!r}; there are: {known}."
            raise ConfigurationError(message) from error
        except ValidationError as error:
            message = f"{place.run} is damaged. Restore it, or start the configuration anew."
            raise StateDamaged(message) from error

    def write(self, entry: RunEntry) -> None:
        """Write run.json."""
        replace_durably(self._folder.run(entry.run).run, entry.model_dump_json(indent=1).encode())

    def under_way(self) -> list[RunEntry]:
        """Return what was under way when the service ended, in the order in which it was begun."""
        found = []
        for name in self._folder.run_names():
            try:
                entry = self.read(name)
            except StateDamaged as error:  # one file must not keep all other runs from going on
                log(__name__).error("a run is left alone", run=name, reason=str(error))
                continue
            if entry.state in ACTIVE:
                found.append(entry)
        return sorted(found, key=lambda entry: entry.created)

    def _free_name(self, wanted: str) -> str:
        taken = (
            {path.name for path in self._folder.runs.iterdir()}
            if (self._folder.runs.is_dir())
            else set()
        )
        numbers = [
            int(match["number"])
            for name in taken
            if (match := _NUMBERED.match(name)) and match["name"] == wanted
        ]
        return wanted if wanted not in taken else f"{wanted}-{max([1, *numbers]) + 1}"


def how_to_resume(name: str, reason: str) -> str:
    """Return a message that says why a run does not go on, and what makes it."""
    return (
        f"{reason} Nothing saved is lost. Go on from the last saved round with: "
        f"wardround-coordinator resume {name}"
    )


def stopped_by_hand(name: str) -> str:
    """Return the message of a run that an operator stopped."""
    return how_to_resume(name, "Stopped by the operator.")


def killed_too_often(entry: RunEntry, last: str, log_path: Path) -> str:
    """Return the message of a run that was given up; `last` is what was killed the last time."""
    reason = (
        f"It was killed {entry.kills} times after round {entry.kills_after} was saved, and did "
        f"not get further; last {last} (SIGKILL is mostly too little memory). See {log_path}."
    )
    return how_to_resume(entry.run, reason)
