"""Durable writing: a file is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


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
