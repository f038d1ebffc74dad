"""The file that a cell of a table names, below its site's folder.

Public: file_below.
"""

from __future__ import annotations

from pathlib import Path

from client.dicom.reasons import Reason, UnusableFile


def file_below(site: Path, name: str, *, outside: Reason, missing: Reason) -> Path:
    """Return the path of a plain file; UnusableFile for what leaves the folder or is not there.

    A link counts as what it points at.
    """
    path = site / name
    try:
        inside, there = path.resolve().is_relative_to(site.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        # A text that is no name of a file: too long, with a NUL, a circle of links.
        raise UnusableFile(missing, f"{name[:40]!r} is no file's name") from error
    if not inside:
        raise UnusableFile(outside, "the path leaves the site's folder")
    if not there:
        raise UnusableFile(missing, path.name)
    return path
