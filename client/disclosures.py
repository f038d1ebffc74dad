"""What has left this hospital: one line for each message, in a chain of hashes.

Guarantee: the line is durable before its message is sent, so nothing leaves without a line. A
line says what, to whom, how many bytes, which run and round, and the privacy that was spent by
then; it holds nothing of any patient, and neither does the message.

    killed between line and message   the line is there; the same message is sent later (`again`)
    a line changed, cut out, put in   `verify` names the first line that does not fit
    lines missing at the end          `verify` against a hash that was written down elsewhere
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import StateDamaged
from common.hash_chain import ChainedLog, hashes, lines, now


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
    records: RecordsMark | None = None  # where the site's records stood; None: of a refusal


@dataclass(frozen=True, kw_only=True)
class Disclosed:
    """One line of the log."""

    at: str  # UTC, ISO 8601
    disclosure: Disclosure
    again: bool  # the same message had left before: nothing new was told
    hash: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A log whose chain holds."""

    messages: int
    head: str  # hash of the last line; write it down elsewhere to notice lines that are cut off


class Disclosures:
    """The log, held by the one daemon that writes it."""

    def __init__(self, path: Path, *, clock: Callable[[], str] = now) -> None:
        self._log = ChainedLog(path, clock=clock)
        self._known = {line["sha256"] for line in lines(path) if "sha256" in line}

    def record(self, disclosure: Disclosure) -> None:
        """Write a message's line durably; send it after this, not before."""
        facts = {name: value for name, value in asdict(disclosure).items() if name != "records"}
        if disclosure.records is not None:
            facts["records"] = asdict(disclosure.records)
        self._log.append({**facts, "again": disclosure.sha256 in self._known})
        self._known.add(disclosure.sha256)


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


def verify(path: Path, known: str = "") -> Verified:
    """Check the chain; StateDamaged where it breaks, or where it never stood at `known`."""
    found = list(hashes(path))
    if known and not any(own.startswith(known.lower()) for own in found):
        message = (
            f"{path} has {len(found)} whole lines, none with hash {known}: lines were cut off or "
            "an old copy was put back. Keep the file as evidence and look for a newer copy."
        )
        raise StateDamaged(message)
    return Verified(messages=len(found), head=found[-1] if found else "")


def _read(line: dict[str, object]) -> Disclosed:
    epsilon = line["epsilon"]
    return Disclosed(
        at=str(line["at"]), again=line["again"] is True, hash=str(line["hash"]),
        disclosure=Disclosure(
            kind=str(line["kind"]), to=str(line["to"]), run=str(line["run"]),
            round=_number(line["round"]), bytes=_number(line["bytes"]),
            sha256=str(line["sha256"]),
            epsilon=float(epsilon) if isinstance(epsilon, int | float) else None,
            records=_mark(line.get("records")),
        ),
    )  # fmt: skip


def _mark(value: object) -> RecordsMark | None:
    """Return where records stood; lines of 0.1.0 do not say it."""
    if value is None:
        return None
    if not isinstance(value, dict):
        message = f"{value!r:.80}"
        raise TypeError(message)
    return RecordsMark(
        charges=_number(value["charges"]), hash=str(value["hash"]),
        withdrawals=str(value["withdrawals"]),
    )  # fmt: skip


def _number(value: object) -> int:
    if not isinstance(value, int):
        message = f"{value!r}"
        raise TypeError(message)
    return value
