"""What was prepared once need not be prepared again: arrays and facts under content keys.

Every entry is written under a temporary name, made durable and renamed, so that a crash or a
second process leaves a whole entry or none; arrays carry a checksum that is looked at before
they are handed out. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.durable import replace_durably

#: Part of every key; raised when reading or preparing changes.
READER_VERSION = 4
#: Stands after an array: a mark and the CRC-32 of its bytes.
_SEAL = struct.Struct("<4sI")
_MARK = b"WRC1"
_EDGE_BYTES = 4096


def key_of(*parts: object) -> str:
    """Return a key for whatever follows from these parts."""
    text = json.dumps([READER_VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_key(path: Path) -> str:
    """Return what changes when a file does: size, time of change, and both its ends.

    A DICOM file begins with its UIDs; the place where it lies is no part of the key.
    """
    status = path.stat()
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(max(0, status.st_size - _EDGE_BYTES))
        ends = hashlib.sha256(head + file.read(_EDGE_BYTES)).hexdigest()
    return key_of("file", status.st_size, status.st_mtime_ns, ends)


@dataclass(frozen=True)
class Cache:
    """A folder of arrays; each is written whole under its key or not at all."""

    folder: Path

    def array(self, key: str) -> NDArray[np.generic] | None:
        """Return a memory-mapped array, or None when it is not there or not whole.

        It may be written to: changes stay in this process's memory.
        """
        path = self.folder / f"{key}.npy"
        try:
            # "c", copy on write: torch wants memory that may be written to.
            found = np.load(path, mmap_mode="c", allow_pickle=False)
            with path.open("rb") as file:
                file.seek(-_SEAL.size, os.SEEK_END)
                whole = file.read() == _seal(found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            whole, found = False, np.zeros(0)
        if not whole:
            path.unlink(missing_ok=True)
            return None
        return found  # type: ignore[no-any-return]  # numpy types load as Any

    def keep_array(self, key: str, array: NDArray[np.generic]) -> None:
        """Write an array under its key; several processes may do so at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        array = np.asarray(array, order="C")
        temporary = self.folder / f".{key}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.write(_seal(array))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / f"{key}.npy")
        finally:
            temporary.unlink(missing_ok=True)

    def facts(self, key: str) -> dict[str, object] | None:
        """Return what was noted under a key, or None."""
        path = self.folder / f"{key}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            path.unlink(missing_ok=True)
            return None
        return content if isinstance(content, dict) else None

    def keep_facts(self, key: str, facts: dict[str, object]) -> None:
        """Note facts under a key."""
        replace_durably(self.folder / f"{key}.json", json.dumps(facts).encode())


def _seal(array: NDArray[np.generic]) -> bytes:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _SEAL.pack(_MARK, zlib.crc32(flat.data))
