"""Search of a folder for files that may be DICOM."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

#: Not DICOM, and no need to say so for each.
NOT_IMAGES = frozenset(
    {
        ".csv",
        ".png",
        ".txt",
        ".md",
        ".json",
        ".html",
        ".yaml",
        ".yml",
        ".xlsx",
        ".parquet",
        ".nii",
        ".gz",
    }
)

#: The size of what cannot be listed by its name, as that is not UTF-8.
UNNAMED = -2


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as the folder lists it."""

    path: Path  # absolute
    size: int  # bytes; -1 for a folder that may not be entered, UNNAMED for a name in no letters
    mtime_ns: int  # time of last change, ns since 1970


def files_below(folder: Path) -> list[File]:
    """Return the files in the order of their paths; hidden ones are left out.

    A folder that may not be entered is among them, so that it is listed as unreadable; so is what
    bears a name that is not UTF-8, by a name that can be written down.
    """
    found: list[File] = []
    waiting = [str(folder)]
    while waiting:
        name = waiting.pop()
        try:
            with os.scandir(name) as entries:
                for entry in entries:
                    if not _is_text(entry.name):
                        found += _unnamed(entry)
                    elif entry.is_dir(follow_symlinks=False):
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


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _unnamed(entry: os.DirEntry[str]) -> list[File]:
    """Return what can be said of an entry that no index, list or report can name."""
    if not entry.is_dir(follow_symlinks=False) and not _may_be_dicom(entry.name):
        return []
    shown = os.fsencode(entry.path).decode("utf-8", "backslashreplace")
    return [File(path=Path(shown), size=UNNAMED, mtime_ns=0)]


def _file(entry: os.DirEntry[str]) -> list[File]:
    with contextlib.suppress(OSError):  # a link to nowhere, or gone since
        if entry.is_file():
            status = entry.stat()
            size, changed = status.st_size, status.st_mtime_ns
            return [File(path=Path(entry.path), size=size, mtime_ns=changed)]
    return []
