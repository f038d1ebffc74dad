"""Append-only file of JSON lines in a chain of hashes.

The chain shows a line that was changed, removed from the middle, moved or put in. It cannot show
that whole lines are missing at the end: for that, keep a copy of the last hash elsewhere.

    a crash while writing     the torn last line is cut: nobody was told that it was written
    a full disk               what was written of the line is taken back, and OSError says why
    a reader at the same time sees whole lines only; it never changes the file
    another copy put in its place while it is open    the next line follows that copy's last, or
                              StateDamaged where its own chain does not hold
    two writers               not provided for: the chain may break, and `verify` shows where
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from common.platform.errors import StateDamaged

#: What JSON can hold.
Fact = str | int | float | bool | None | list["Fact"] | dict[str, "Fact"]

#: What stands before the first line.
GENESIS = "0" * 64
#: Read at once from a log's end.
_BLOCK_BYTES = 1 << 16


def now() -> str:
    """Return the time as a line says it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class ChainedLog:
    """A file of lines; each holds its own hash and the hash of the line before."""

    def __init__(self, path: Path, *, clock: Callable[[], str] = now) -> None:
        self.path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        self.head = GENESIS
        #: The file as this writer left it: what is there now may be another's.
        self._left: tuple[int, int, int] | None = None
        self._take_up()

    def append(self, facts: Mapping[str, Fact]) -> str:
        """Write one line durably and return its hash.

        Facts hold no nan or infinity, which JSON does not have. `at`, `previous` and `hash` are
        the chain's own. StateDamaged where another file was put in this one's place, and its chain
        does not hold.
        """
        if self._file() != self._left:
            self._take_up()
        body: dict[str, object] = {**facts, "at": self._clock(), "previous": self.head}
        body.pop("hash", None)
        head = _hash(body)
        line = _text({**body, "hash": head}) + b"\n"
        # Unbuffered: a buffer would write what is left of the line again when it is closed.
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                rest = line
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                # Or the next line would be glued to the half of this one.
                os.ftruncate(file.fileno(), end)
                raise
        self.head, self._left = head, self._file()
        return head

    def _take_up(self) -> None:
        _cut_torn_line(self.path)
        self.head, self._left = verify(self.path), self._file()

    def _file(self) -> tuple[int, int, int] | None:
        """Return what tells the file as this writer left it from another one or a changed one."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def verify(path: Path) -> str:
    """Return the hash of the last line; StateDamaged names the first line that does not fit."""
    head = GENESIS
    for head in hashes(path):  # noqa: B007  # the last one is wanted
        pass
    return head


def hashes(path: Path) -> Iterator[str]:
    """Yield the hash of each line that fits; StateDamaged at the first that does not."""
    head = GENESIS
    for number, line in enumerate(lines(path), 1):
        own = line.pop("hash", None)
        if line.get("previous") != head or own != _hash(line):
            message = (
                f"{path}, line {number} does not fit its hash or the line before it: a line was "
                "changed, removed or added. Keep the file as evidence and restore it from a copy."
            )
            raise StateDamaged(message)
        head = str(own)
        yield head


def lines(path: Path) -> Iterator[dict[str, object]]:
    """Yield each whole line; StateDamaged for one that was not written so, to the last space."""
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        found = _read(line)
        if found is None:
            message = (
                f"{path}, line {number} is no line of this log: {line[:80]!r}. Keep the file as "
                "evidence and restore it from a copy."
            )
            raise StateDamaged(message)
        yield found


def newest_first(path: Path) -> Iterator[dict[str, object]]:
    """Yield whole lines from the end on, and read no more of the file than is asked for.

    StateDamaged as of `lines`. What stands behind the last end of a line is torn, and nobody's.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        left, rest, is_torn = file.seek(0, os.SEEK_END), b"", True
        while left:
            size = min(_BLOCK_BYTES, left)
            left -= size
            file.seek(left)
            rest, *ended = (file.read(size) + rest).split(b"\n")
            whole, is_torn = (ended[:-1], False) if is_torn and ended else (ended, is_torn)
            yield from (_read_or_raise(path, line) for line in reversed(whole))
        if not is_torn:
            yield _read_or_raise(path, rest)


def _read_or_raise(path: Path, line: bytes) -> dict[str, object]:
    found = _read(line)
    if found is None:
        for _ in lines(path):  # raises at the first that is none, with its number
            pass
        message = f"{path} was changed while it was read."
        raise StateDamaged(message)
    return found


def _read(line: bytes) -> dict[str, object] | None:
    try:
        found: object = json.loads(line)
        return found if isinstance(found, dict) and _text(found) == line else None
    except (ValueError, RecursionError):
        return None


def _cut_torn_line(path: Path) -> None:
    """Remove a last line without its end: a crash while writing left it, nobody saw it."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _text(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, allow_nan=False).encode()


def _hash(body: Mapping[str, object]) -> str:
    return hashlib.sha256(_text(body)).hexdigest()
