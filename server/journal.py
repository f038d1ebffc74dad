"""What happened in a run, line by line: append-only JSON with a chain of hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import StateDamaged

Fact = str | int | float | bool | None | Sequence["Fact"] | Mapping[str, "Fact"]

_GENESIS = "0" * 64


class Journal:
    """A file of lines; each holds the hash of the line before, so none can be changed later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._cut_torn_line()
        self._head = verify(path)

    def write(self, event: str, facts: Mapping[str, Fact]) -> None:
        """Append one line durably."""
        body = {"event": event, "previous": self._head, **facts}
        line = json.dumps(body, sort_keys=True, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._head = _hash(line)

    def _cut_torn_line(self) -> None:
        """Remove a last line without its end: a crash while writing left it, nobody saw it."""
        if not self._path.exists():
            return
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))


def verify(path: Path) -> str:
    """Return the hash of the last line; StateDamaged names the first line that does not fit."""
    head = _GENESIS
    if not path.exists():
        return head
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            previous = json.loads(line)["previous"]
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path}, line {number} is no journal line: {line[:80]!r}"
            raise StateDamaged(message) from error
        if previous != head:
            message = (
                f"{path}, line {number} does not follow the line before it: a line was changed, "
                "removed or added. Keep the file as evidence and restore it from a copy."
            )
            raise StateDamaged(message)
        head = _hash(line)
    return head


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
