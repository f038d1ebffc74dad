"""The file that a cell of a table names, below its site's folder.

Systems write a letter with an accent as one sign or as two, and so may table and file.

Public: file_below, one_name.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from client.dicom.reasons import Reason, UnusableFile


def file_below(site: Path, name: str, *, outside: Reason, missing: Reason) -> Path:
    """Return the path of a plain file; UnusableFile for what leaves the folder or is not there.

    A link counts as what it points at. Where no file has the very name, the one file counts whose
    name is the same in another form of Unicode.
    """
    try:
        path = _as_written(site, name)
        inside, there = path.resolve().is_relative_to(site.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        # A text that is no name of a file: too long, with a NUL, a circle of links.
        raise UnusableFile(missing, f"{name[:40]!r} is no file's name") from error
    if not inside:
        raise UnusableFile(outside, "the path leaves the site's folder")
    if not there:
        raise UnusableFile(missing, path.name)
    return path


def one_name(name: str) -> str:
    """Return a path below a folder in one form, however it is written."""
    return unicodedata.normalize("NFC", os.path.normpath(name))


def _as_written(site: Path, name: str) -> Path:
    """Return the path by the names that the disk has for it."""
    path = site / name
    if name.isascii() or path.exists():
        return path
    found = site
    for part in Path(name).parts:
        if not (found / part).exists():
            same = [one.name for one in found.iterdir() if one_name(one.name) == one_name(part)]
            if len(same) != 1:
                return path
            part = same[0]  # noqa: PLW2901
        found /= part
    return found
