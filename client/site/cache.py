"""Cache of prepared arrays and facts under keys of their content.

Every entry is written under a temporary name, made durable and renamed, so that a crash or a
second process leaves a whole entry or none; arrays carry a checksum that is looked at before
they are handed out. The folder may be deleted at any time.

Whoever fills it holds `in_use`; a withdrawal empties it under `alone`, so it waits for those who
began before it, and whoever begins after it sees it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.platform.durable_files import replace_durably
from common.platform.file_lock import FileLock

#: Part of every key; raised when reading or preparing changes.
READER_VERSION = 13
#: Stands after an array: a mark and the CRC-32 of its bytes.
_SEAL = struct.Struct("<4sI")
_MARK = b"WRC1"
_EDGE_BYTES = 4096
_LOCK = "lock"
#: The folder of stored pixel values, which lose single patients instead of everything.
PIXELS = "pixels"
#: The folder of prepared items, which lose single patients, too.
_ITEMS = "items"


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


def pixels_key(path: Path, patient: str) -> str:
    """Return the key of a file's decoded pixels; files of two patients never share one."""
    return key_of(file_key(path), patient)


@dataclass(frozen=True)
class Cache:
    """A folder of arrays; each is written whole under its key or not at all."""

    folder: Path
    index_file: Path | None = None  # of the site's home; None: the cache has one of its own

    @property
    def index(self) -> Path:
        """Return where the index of the images' headers is (client.dicom.index.index)."""
        return self.index_file or self.folder / "index.db"

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

    @property
    def items(self) -> Path:
        """Return the folder of prepared items: one folder a patient, one file an item."""
        return self.folder / _ITEMS

    def item_name(self, patient: str, key: str) -> str:
        """Return an item's file below `items`; nobody's name is in it."""
        return f"{_own_folder(patient)}/{key}.npy"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the cache while it is read and filled; several may."""
        with self._locked(shared=True):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the cache while nobody else does; waits until that is so."""
        with self._locked(shared=False):
            yield

    def forget_prepared(self, patient: str) -> int:
        """Remove a patient's prepared items, and return how many files were removed.

        To be called under `alone`. What was made of many patients goes as a whole: lists of
        items, and features. The other patients' items stay, and so do the stored pixels.
        """
        removed = 0
        own = self.items / _own_folder(patient)
        for path in (own, *(self.folder.iterdir() if self.folder.is_dir() else ())):
            if path.name in {_LOCK, PIXELS, _ITEMS} or not path.exists():
                continue
            if path.is_dir() and not path.is_symlink():
                removed += sum(1 for file in path.rglob("*") if file.is_file())
                shutil.rmtree(path)
            else:
                path.unlink()
                removed += 1
        return removed

    def _locked(self, *, shared: bool) -> FileLock:
        return FileLock(self.folder / _LOCK, shared=shared, waits=True)


def _own_folder(patient: str) -> str:
    # Without READER_VERSION: what an earlier release kept of a patient is found, too.
    return hashlib.sha256(f"patient {patient}".encode()).hexdigest()[:32]


def _seal(array: NDArray[np.generic]) -> bytes:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _SEAL.pack(_MARK, zlib.crc32(flat.data))
