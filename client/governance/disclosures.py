"""Disclosures: one line for each message that left this hospital, in a chain of hashes.

Guarantee: the line is durable before its message is sent, so nothing leaves without a line; what
comes again and again is counted in one (client/governance/repetition_limits.py), and nobody can
fill the disk. A line says what, to whom, how many bytes, which run and round, and the privacy that
was spent by then; it holds nothing of any patient, and neither does the message.

    the same message again            one line at once, one after five minutes, then after twice the
                                      time, to one a day (`times`); a kill loses the number of those
                                      since, none of which was news
    ever another refusal or standing  500 lines at once and one a minute; the rest is counted
    killed between line and message   the line is there; the same message is sent later (`again`)
    a line changed, cut out, put in   `verify` names the first line that does not fit
    lines missing at the end          `verify` against a hash that was written down elsewhere
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from client.governance.repetition_limits import DAY_SECONDS, Allowance, Clock, Repetitions
from common.platform.errors import StateDamaged
from common.platform.hash_chain import GENESIS, ChainedLog, hashes, lines, newest_first, now

#: Messages that a coordinator gets for nothing, so that it may ask for any number of them.
_FREE = frozenset({"refusal", "standing"})
_FREE_AT_ONCE, _FREE_SECONDS = 500, 60.0
#: Messages that are known to have left before; older ones count as new.
_MOST_KNOWN = 100_000


@dataclass(frozen=True, kw_only=True)
class RecordsMark:
    """Where the site's records stood when a message left; what is of withdrawals is sealed."""

    charges: int
    hash: str
    withdrawals: str  # only this home can read it


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """One message that is about to leave."""

    kind: str  # as on the wire: standing, update, report or refusal
    to: str  # the coordinator
    run: str
    round: int
    bytes: int  # of the message
    sha256: str  # of the message, in hex
    epsilon: float | None = None  # spent on these patients with it; None: it has no privacy
    records: RecordsMark | None = None  # where the site's records stood; None: not told


@dataclass(frozen=True, kw_only=True)
class Disclosed:
    """One line of the log."""

    at: str  # UTC, ISO 8601
    disclosure: Disclosure
    again: bool  # the same message had left before: nothing new was told
    hash: str
    times: int = 1  # messages that the line stands for: this one, and what was counted before it


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A log whose chain holds."""

    messages: int
    head: str  # hash of the last line; write it down elsewhere to notice lines that are cut off


class Disclosures:
    """The log, held by the one daemon that writes it."""

    def __init__(
        self, path: Path, *, clock: Callable[[], str] = now, seconds: Clock = time.monotonic
    ) -> None:
        self._log = ChainedLog(path, clock=clock)
        self._known = deque(
            (str(line["sha256"]) for line in lines(path) if "sha256" in line), _MOST_KNOWN
        )
        self._told = set(self._known)
        self._repeated: Repetitions[Disclosure] = Repetitions(seconds, DAY_SECONDS)
        self._free = Allowance(_FREE_AT_ONCE, _FREE_SECONDS, seconds)

    def record(self, disclosure: Disclosure) -> None:
        """Write a message's line durably; send it after this, not before.

        A line that stands for it may be there already, or come within a day.
        """
        key, new = disclosure.sha256, disclosure.sha256 not in self._told
        if new and disclosure.kind in _FREE and not self._free.take():
            key = disclosure.kind  # the coordinator may have any number of these
        self._repeated.add(key, disclosure, self._write)

    def close(self) -> None:
        """Write what was counted and has no line yet; on a full disk only the number is lost."""
        with suppress(OSError):
            self._repeated.rest(self._write)

    def _write(self, disclosure: Disclosure, times: int) -> None:
        facts = {name: value for name, value in asdict(disclosure).items() if name != "records"}
        if disclosure.records is not None:
            facts["records"] = asdict(disclosure.records)
        if times > 1:
            facts["times"] = times
        self._log.append({**facts, "again": disclosure.sha256 in self._told})
        if disclosure.sha256 not in self._told:
            if len(self._known) == _MOST_KNOWN:
                self._told.discard(self._known[0])
            self._known.append(disclosure.sha256)
            self._told.add(disclosure.sha256)


def listed(path: Path) -> tuple[Disclosed, ...]:
    """Return every line, oldest first; StateDamaged for one that is not of this log."""
    found: list[Disclosed] = []
    for number, line in enumerate(lines(path), 1):
        try:
            found.append(_read(line))
        except (KeyError, TypeError) as error:
            message = f"{path}, line {number} is no disclosure: {error} does not fit."
            raise StateDamaged(message) from error
    return tuple(found)


def last_hash(path: Path) -> str:
    """Return the hash of the newest line; StateDamaged as `lines`."""
    line = next(newest_first(path), None)
    return GENESIS if line is None else str(line["hash"])


def had_line(path: Path, known: str) -> bool:
    """Return whether a line has that hash; the newest are looked at first."""
    return known == GENESIS or any(line["hash"] == known for line in newest_first(path))


def last_mark(path: Path) -> RecordsMark | None:
    """Return where records stood at the newest message that says it; StateDamaged as `lines`."""
    try:
        marks = (_mark(line.get("records")) for line in newest_first(path))
        return next((mark for mark in marks if mark is not None), None)
    except (KeyError, TypeError) as error:
        message = f"{path} has a line that is no disclosure: {error} does not fit."
        raise StateDamaged(message) from error


def verify(path: Path, known: str = "") -> Verified:
    """Check the chain; StateDamaged where it breaks, or where it never stood at `known`."""
    found = list(hashes(path))
    times = (line.get("times", 1) for line in lines(path))
    if known and not any(own.startswith(known.lower()) for own in found):
        message = (
            f"{path} has {len(found)} whole lines, none with hash {known}: lines were cut off or "
            "an old copy was put back. Keep the file as evidence and look for a newer copy."
        )
        raise StateDamaged(message)
    messages = sum(number for number in times if isinstance(number, int))
    return Verified(messages=messages, head=found[-1] if found else "")


def _read(line: dict[str, object]) -> Disclosed:
    epsilon = line["epsilon"]
    return Disclosed(
        at=str(line["at"]),
        again=line["again"] is True,
        hash=str(line["hash"]),
        times=_number(line.get("times", 1)),
        disclosure=Disclosure(
            kind=str(line["kind"]),
            to=str(line["to"]),
            run=str(line["run"]),
            round=_number(line["round"]),
            bytes=_number(line["bytes"]),
            sha256=str(line["sha256"]),
            epsilon=float(epsilon) if isinstance(epsilon, int | float) else None,
            records=_mark(line.get("records")),
        ),
    )


def _mark(value: object) -> RecordsMark | None:
    """Return where records stood; lines of 0.1.0 do not say it."""
    if value is None:
        return None
    if not isinstance(value, dict):
        message = f"{value!r:.80}"
        raise TypeError(message)
    return RecordsMark(
        charges=_number(value["charges"]),
        hash=str(value["hash"]),
        withdrawals=str(value["withdrawals"]),
    )


def _number(value: object) -> int:
    if not isinstance(value, int):
        message = f"{value!r}"
        raise TypeError(message)
    return value
