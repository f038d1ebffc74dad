"""A file that one holder at a time has; the lock goes when the last process with it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self


class Taken(Exception):
    """Somebody else holds the lock."""


class FileLock:
    """An open, locked file; a child that inherits `fd` holds the same lock."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self.fd)
            raise Taken from error

    def close(self) -> None:
        """Let go; a child that inherited the lock still has it."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        """Return the held lock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self.close()
