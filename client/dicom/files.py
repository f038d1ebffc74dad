"""The files of a folder that may be DICOM."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

#: Not DICOM, and no need to say so for each.
NOT_IMAGES = frozenset({
    ".csv", ".png", ".txt", ".md", ".json", ".html", ".yaml", ".yml", ".xlsx", ".parquet", ".nii",
    ".gz",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as the folder lists it."""

    path: Path  # absolute
    size: int  # bytes; -1 for a folder that may not be entered
    mtime_ns: int  # time of last change, ns since 1970


def files_below(folder: Path) -> list[File]:
    """Return the files in the order of their paths; hidden ones are left out.

    A folder that may not be entered is among them, so that it is listed as unreadable.
    """
    found: list[File] = []
    waiting = [str(folder)]
    while waiting:
        name = waiting.pop()
        try:
            with os.scandir(name) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif _may_be_dicom(entry.name):
                        found += _file(entry)
        except OSError:
            if name == str(folder):
                raise
            found.append(File(path=Path(name), size=-1, mtime_ns=0))
    return sorted(found, key=lambda file: file.path)


def _may_be_dicom(name: str) -> bool:
    # A Path for each name would cost more than scanning the header.
    return not name.startswith(".") and os.path.splitext(name)[1].lower() not in NOT_IMAGES  # noqa: PTH122


def _file(entry: os.DirEntry[str]) -> list[File]:
    with contextlib.suppress(OSError):  # a link to nowhere, or gone since
        if entry.is_file():
            status = entry.stat()
            size, changed = status.st_size, status.st_mtime_ns
            return [File(path=Path(entry.path), size=size, mtime_ns=changed)]
    return []
