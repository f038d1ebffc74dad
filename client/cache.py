"""What was read once need not be read again: stored pixels and prepared arrays, memory-mapped.

Stored values are kept as the scanner wrote them (8 or 16 bits), with the line that makes
them quantities beside them, so another run's preprocessing starts from the same truth.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.dicom.read import Pixels
from common.weights import replace_durably

#: Part of every key; raised when reading or preparing changes.
READER_VERSION = 2


def key_of(*parts: object) -> str:
    """Return a key for whatever follows from these parts."""
    text = json.dumps([READER_VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_identity(root: Path, path: Path) -> tuple[str, int, int]:
    """Return what changes when a file does: path below root, size, time of change."""
    status = path.stat()
    return path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Cache:
    """A folder of arrays; each is written whole under its key or not at all."""

    folder: Path

    def array(self, key: str) -> NDArray[np.generic] | None:
        """Return a memory-mapped array, or None when it is not there or not whole."""
        path = self.folder / f"{key}.npy"
        try:
            found: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            path.unlink(missing_ok=True)
            return None
        return found

    def keep_array(self, key: str, array: NDArray[np.generic]) -> None:
        """Write an array under its key; two processes may do so at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{key}.{os.getpid()}.npy"
        np.save(temporary, array, allow_pickle=False)
        temporary.replace(self.folder / f"{key}.npy")

    def pixels(self, key: str) -> Pixels | None:
        """Return an object's stored values, memory-mapped, or None."""
        facts = self.facts(key)
        stored = self.array(key) if facts is not None else None
        if stored is None or facts is None:
            return None
        return Pixels(
            stored=stored,  # type: ignore[arg-type]  # written by keep_pixels
            slope=np.asarray(facts["slope"], np.float64),
            intercept=np.asarray(facts["intercept"], np.float64),
            inverted=bool(facts["inverted"]),
        )

    def keep_pixels(self, key: str, pixels: Pixels) -> None:
        """Write stored values and what makes them quantities."""
        self.keep_array(key, pixels.stored)
        self.keep_facts(key, {
            "slope": pixels.slope.tolist(), "intercept": pixels.intercept.tolist(),
            "inverted": pixels.inverted,
        })  # fmt: skip

    def facts(self, key: str) -> dict[str, object] | None:
        """Return what was noted under a key, or None."""
        path = self.folder / f"{key}.json"
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            path.unlink(missing_ok=True)
            return None
        return content if isinstance(content, dict) else None

    def keep_facts(self, key: str, facts: dict[str, object]) -> None:
        """Note facts under a key."""
        replace_durably(self.folder / f"{key}.json", json.dumps(facts).encode())
