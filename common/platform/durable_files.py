"""Durable writing: a file is whole or not there; what failed for want of room can be told.

Public: is_for_want_of_room, link_or_copy, replace_durably, room_left.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: With less than this, what failed may have failed for it, in whatever words.
_NO_ROOM_BYTES = 1024 * 1024


def replace_durably(
    path: Path, content: bytes | Iterable[bytes | memoryview], *, mode: int = 0o666
) -> None:
    """Put content at path by temporary name, fsync, rename, fsync of the folder.

    Content in parts is written part by part. The file has the permissions of `mode`, less the
    process's umask, from its first byte.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # One that a crash left behind would keep its permissions.
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.writelines((content,) if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)  # on a full disk it would take room from what follows
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk's error names no file by itself
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def link_or_copy(path: Path, to: Path) -> None:
    """Let a file have a second name; a copy where the file system knows no such thing.

    FileNotFoundError where it is gone. Neither name may be written to after that, only replaced.
    """
    try:
        os.link(path, to)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, to)


def room_left(place: Path) -> int:
    """Return the free bytes of the file system that a file or folder is on, or would be."""
    while not place.exists() and place != place.parent:
        place = place.parent
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def is_for_want_of_room(error: BaseException, *places: Path) -> bool:
    """Return whether an error says that a disk is full, or came while one of `places` has no room.

    Libraries tell of a full disk in many ways (SQLite as a disk error of its journal), and by the
    time that somebody looks there may be room again: so both are asked.
    """
    if any(_says_so(one) for one in _chain(error)):
        return True
    return any(room_left(place) < _NO_ROOM_BYTES for place in places)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        within = getattr(error, "orig", None)  # SQLAlchemy's
        if isinstance(within, BaseException):
            yield within
        error = error.__cause__ or error.__context__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in _FULL
