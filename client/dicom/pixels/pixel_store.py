"""Memory-mapped store of the pixel values of every object that was decoded once.

Values lie in shards as the scanner wrote them (8 or 16 bits); an SQLite index says where, with
the header and the line that makes them quantities. A shard is made durable and renamed before
its rows are written, so a row never points at what is not there; two processes that decode the
same file each write a shard and one row wins. Another size or intensity rule starts from here
instead of from compressed files.

Guarantee: the store of a site's home keeps nothing of a patient who was withdrawn there. Whoever
has it open shares a lock; a withdrawal waits for them, and whoever opens it later sees it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
import zlib
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.dicom.codec.compressed import Array
from client.site.withdrawals import withdrawn_near
from common.platform.file_lock import FileLock

#: A shard is closed when it is this long, so that a crash costs no more than one.
_SHARD_BYTES = 1 << 28
#: Values start at multiples of this: a cache line, and whatever alignment numpy wants.
_ALIGNMENT = 64
#: A temporary file of this age belongs to no living process.
_ABANDONED_SECONDS = 86400.0
_TABLE = """CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, facts TEXT NOT NULL,
    shard TEXT, start INTEGER, dtype TEXT, shape TEXT, checksum INTEGER)"""
_OF_PATIENT = "SELECT key, shard FROM objects WHERE json_extract(facts, '$.header.patient') = ?"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One object of the store."""

    facts: str  # JSON: header, slope, intercept
    stored: Array | None  # (frames, rows, columns[, 3]); None where only the header is known
    checksum: int  # CRC-32 of the stored values


class PixelStore:
    """A folder of shards and their index; use it as a context.

    `withdrawn` are the patients that must not be kept: those of the home whose cache it is.
    """

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock", shared=not alone, waits=True)
        self.withdrawn = withdrawn_near(folder.absolute())
        self._shards: dict[str, NDArray[np.uint8]] = {}
        self._found: dict[str, Entry] = {}  # views of what was checked, not copies
        self._pending: list[tuple[object, ...]] = []
        self._writer: BufferedWriter | None = None
        _sweep(folder)
        self._index = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
            self._index.close()
        finally:
            self._lock.close()

    def find(self, key: str) -> Entry | None:
        """Return an object whose values are as they were written, or None."""
        known = self._found.get(key)
        if known is not None:
            return known
        try:
            row = self._index.execute(
                "SELECT facts, shard, start, dtype, shape, checksum FROM objects WHERE key = ?",
                (key,),
            ).fetchone()
        except sqlite3.DatabaseError:
            self._start_anew()
            return None
        if row is None:
            return None
        facts, shard, start, dtype, shape, checksum = row
        if shard is None:
            return Entry(facts=facts, stored=None, checksum=0)
        stored = self._mapped(shard, start, np.dtype(dtype), tuple(map(int, shape.split(","))))
        if stored is None or zlib.crc32(stored.reshape(-1).view(np.uint8).data) != checksum:
            return None
        self._found[key] = Entry(facts=facts, stored=stored, checksum=checksum)
        return self._found[key]

    def keep(self, key: str, facts: str, stored: Array | None) -> None:
        """Write an object; it can be found after the next flush."""
        self._found.pop(key, None)
        if stored is None:
            self._pending.append((key, facts, None, None, None, None, None))
            return
        stored = np.ascontiguousarray(stored)
        if self._writer is None:
            self._writer = (self.folder / f"{uuid.uuid4().hex}.tmp").open("wb")
        self._writer.write(b"\0" * (-self._writer.tell() % _ALIGNMENT))
        start, content = self._writer.tell(), stored.reshape(-1).view(np.uint8).data
        self._writer.write(content)
        self._pending.append(
            (
                key,
                facts,
                Path(self._writer.name).stem,
                start,
                stored.dtype.str,
                ",".join(map(str, stored.shape)),
                zlib.crc32(content),
            )
        )
        if start > _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make what was written durable, then known."""
        if self._writer is not None:
            temporary = Path(self._writer.name)
            self._writer.flush()
            os.fsync(self._writer.fileno())
            self._writer.close()
            self._writer = None
            temporary.replace(temporary.with_suffix(".shard"))
        try:
            self._insert()
        except sqlite3.DatabaseError:
            self._start_anew()
            self._insert()
        self._pending.clear()

    def forget(self, patient: str) -> int:
        """Remove a patient's objects, values and header, and return how many they were.

        To be called where the store was opened alone. Shards that hold any of them are written
        anew without them, and shards that no row points at are removed, so that a process that
        is killed here leaves nothing that the next call does not find.
        """
        try:
            gone = self._without(patient)
        except sqlite3.OperationalError:  # locked or full: nothing is wrong with what is there
            raise
        except sqlite3.DatabaseError:
            self._start_anew()
            gone = 0
        known = {shard for (shard,) in self._index.execute("SELECT DISTINCT shard FROM objects")}
        for path in (*self.folder.glob("*.shard"), *self.folder.glob("*.tmp")):
            if path.stem not in known:
                path.unlink(missing_ok=True)
        return gone

    def _without(self, patient: str) -> int:
        """Remove a patient's rows, after what others have in their shards was written anew."""
        self._found.clear()
        self._index.execute("PRAGMA secure_delete = ON")  # zeros in place of what is deleted
        gone = self._index.execute(_OF_PATIENT, (patient,)).fetchall()
        for shard in sorted({shard for _, shard in gone if shard is not None}):
            self._write_anew(shard, {key for key, _ in gone})
        with self._index:
            self._index.executemany("DELETE FROM objects WHERE key = ?", [(k,) for k, _ in gone])
        self._index.execute("VACUUM")
        return len(gone)

    def _write_anew(self, shard: str, gone: set[str]) -> None:
        """Write what a shard holds of other patients into a new one, and point their rows there."""
        rows = self._index.execute("SELECT key FROM objects WHERE shard = ?", (shard,)).fetchall()
        for (key,) in rows:
            entry = None if key in gone else self.find(key)
            if entry is not None:
                self.keep(key, entry.facts, entry.stored)
        self.flush()
        # What is not as it was written is not carried over, and its row would keep the old shard.
        with self._index:
            self._index.execute("DELETE FROM objects WHERE shard = ?", (shard,))
        self._shards.pop(shard, None)

    def _insert(self) -> None:
        with self._index:
            self._index.executemany(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)", self._pending
            )

    def _mapped(
        self, shard: str, start: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]
    ) -> Array | None:
        try:
            if shard not in self._shards:
                path = self.folder / f"{shard}.shard"
                self._shards[shard] = np.memmap(path, np.uint8, mode="r")
            length = int(np.prod(shape)) * dtype.itemsize
            # A plain array: memmap's own type makes every later step slower.
            values = np.asarray(self._shards[shard])[start : start + length]
            return values.view(dtype).reshape(shape)
        except (OSError, ValueError):  # the shard is gone or too short
            return None

    def _open(self) -> sqlite3.Connection:
        path = self.folder / "index.sqlite"
        for _ in range(2):
            # autocommit off; writers wait for each other.
            index = sqlite3.connect(path, timeout=60)
            try:
                index.execute(_TABLE)
                index.commit()
            except sqlite3.OperationalError:
                index.close()
                raise
            except sqlite3.DatabaseError:  # not a database: broken, and only a cache
                index.close()
                path.unlink(missing_ok=True)
                continue
            return index
        message = f"{path} cannot be written"
        raise sqlite3.DatabaseError(message)

    def _start_anew(self) -> None:
        """Forget a broken index; its shards are orphans and their objects are decoded again."""
        with contextlib.suppress(sqlite3.Error):
            self._index.close()
        (self.folder / "index.sqlite").unlink(missing_ok=True)
        self._index = self._open()


def _sweep(folder: Path) -> None:
    """Delete what processes left half-written when they were killed."""
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
