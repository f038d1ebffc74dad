"""Lock file with one holder at a time, or several that share it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self


class Taken(Exception):
    """Somebody else holds the lock."""


class FileLock:
    """An open, locked file; a child that inherits `fd` holds the same lock."""

    def __init__(
        self, path: Path, *, shared: bool = False, waits: bool = False, mode: int = 0o600
    ) -> None:
        """Take the lock, or raise Taken where it `waits` for nobody; `mode` is of a new file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self.fd, kind if waits else kind | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(self.fd)
            if isinstance(error, BlockingIOError):
                raise Taken from error
            raise

    def close(self) -> None:
        """Let go; a child that inherited the lock still has it."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        """Return the held lock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self.close()


def is_held(path: Path) -> bool:
    """Return whether somebody has the lock alone; a file that was left behind says nothing."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
