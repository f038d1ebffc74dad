"""What happened in a run, line by line: append-only JSON with a chain of hashes.

The chain shows a line that was changed, removed from the middle or put in. It cannot show
that whole lines are missing at the end: for that, keep a copy of the last hash elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from common.errors import StateDamaged
from server.round_record import Fact

_GENESIS = "0" * 64


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Journal:
    """A file of lines; each holds its own hash and the hash of the line before."""

    def __init__(self, path: Path, *, clock: Callable[[], str] = _now) -> None:
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._head = verify(path)

    def write(self, event: str, facts: Mapping[str, Fact]) -> None:
        """Append one line durably; facts hold no nan or infinity, which JSON does not have."""
        body: dict[str, object] = {
            **facts, "event": event, "at": self._clock(), "previous": self._head,
        }  # fmt: skip
        body.pop("hash", None)  # ours alone
        head = _hash(body)
        with self.path.open("ab") as file:
            file.write(_text({**body, "hash": head}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._head = head

    def rounds(self) -> set[int]:
        """Return the rounds that have a line."""
        lines = (line for line in _lines(self.path) if line["event"] == "round")
        return {number for line in lines if isinstance(number := line["round"], int)}


def _cut_torn_line(path: Path) -> None:
    """Remove a last line without its end: a crash while writing left it, nobody saw it."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def verify(path: Path) -> str:
    """Return the hash of the last line; StateDamaged names the first line that does not fit."""
    head = _GENESIS
    for number, line in enumerate(_lines(path), 1):
        own = line.pop("hash", None)
        if line.get("previous") != head or own != _hash(line):
            message = (
                f"{path}, line {number} does not fit its hash or the line before it: a line was "
                "changed, removed or added. Keep the file as evidence and restore it from a copy."
            )
            raise StateDamaged(message)
        head = str(own)
    return head


def _lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield each line; StateDamaged for one that `write` did not write, to the last space."""
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            found: object = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or _text(found) != line:
            message = f"{path}, line {number} is no journal line: {line[:80]!r}. Restore the file."
            raise StateDamaged(message)
        yield found


def _text(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _hash(body: Mapping[str, object]) -> str:
    return hashlib.sha256(_text(body)).hexdigest()
