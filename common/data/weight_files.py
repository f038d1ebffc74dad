"""Files of public weights, by their SHA-256: put into a folder once, and found there by hash.

    wardround-site          HOME/weights
    wardround-coordinator   FOLDER/weights
    wardround-simulate      $WARDROUND_WEIGHTS, else ~/.wardround/weights

A file is named by the hash of its bytes, with the ending it had: .safetensors, .pth or .pt. What is
read is what was hashed; nothing is ever fetched from a network.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

from common.platform.errors import ConfigurationError

VARIABLE = "WARDROUND_WEIGHTS"
#: Endings of files, in the order in which they are looked for.
ENDINGS = (".safetensors", ".pth", ".pt")
#: No file of public weights is larger, and this is read at once.
_LARGEST = 8 << 30


def weights_folder() -> Path:
    """Return the folder of this process."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path.home() / ".wardround" / "weights"


def take_weights_from(folder: Path) -> None:
    """Let this process, and those that it starts, look for weights in a folder."""
    os.environ[VARIABLE] = str(folder)


def weights_fault(sha256: str) -> str | None:
    """Return why there are no such weights here, with what to do, or None where there are.

    A file is hashed again only when it was changed.
    """
    try:
        path = _file(sha256)
        held = path.stat()
        _check(path, sha256, _hash_of(path, (held.st_mtime_ns, held.st_ctime_ns, held.st_ino)))
    except ConfigurationError as error:
        return str(error)
    return None


def weight_bytes(sha256: str) -> tuple[bytes, str]:
    """Return a file's bytes and ending; ConfigurationError unless they have that hash."""
    path = _file(sha256)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(_unreadable(path, error)) from error
    _check(path, sha256, hashlib.sha256(content).hexdigest())
    return content, path.suffix


def _file(sha256: str) -> Path:
    folder = weights_folder()
    places = (folder / f"{sha256}{ending}" for ending in ENDINGS)
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        message = (
            f"The run begins from weights that are not here. Put their file into {folder} as "
            f"{sha256}{ENDINGS[0]} (or {', '.join(ENDINGS[1:])})."
        )
        raise ConfigurationError(message)
    if path.stat().st_size > _LARGEST:
        message = f"{path} is larger than {_LARGEST >> 30} GiB, which no weights are."
        raise ConfigurationError(message)
    return path


@functools.lru_cache(maxsize=16)
def _hash_of(path: Path, written: tuple[int, ...]) -> str:
    del written  # a file that was changed has another; its time of change cannot be set back
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(_unreadable(path, error)) from error


def _check(path: Path, expected: str, found: str) -> None:
    if found != expected:
        message = (
            f"{path} has the SHA-256 {found}, expected {expected}: it is another file, or was "
            "changed. Get it again from its source."
        )
        raise ConfigurationError(message)


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror}. Let this program's user read it."
