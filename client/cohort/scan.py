"""Scan: which files a site's folder holds, and what the header of each says.

The first step from a folder to tensors (client/cohort/loading.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.index.index import Index
from client.dicom.reading.files import File, files_below


@dataclass(frozen=True, kw_only=True)
class FolderScan:
    """The files of a folder, in a fixed order, and where their headers are looked up."""

    site: Path
    files: tuple[Path, ...]
    index: Index | None  # up to date; None: headers are read from the files

    def name(self, path: Path) -> str:
        """Return a file's path below the site's folder."""
        return path.relative_to(self.site).as_posix()

    def header(self, path: Path) -> Instance | Quarantined:
        """Return what a file's header says, or why it cannot be used; OSError if it is not read."""
        known = None if self.index is None else self.index.look_up(path)
        if known is not None:
            return known
        status = path.stat()
        return read_file(
            File(path=path.absolute(), size=status.st_size, mtime_ns=status.st_mtime_ns)
        )


def dicom_files(site: Path, masks: frozenset[str]) -> list[Path]:
    """Return the files that may be DICOM, in a fixed order; masks are left out."""
    return [
        file.path
        for file in files_below(site)
        if not masks or file.path.relative_to(site).as_posix() not in masks
    ]


def scan(site: Path, files: Iterable[Path], index: Index | None = None) -> FolderScan:
    """Return these files of a folder; the index, where there is one, is brought up to date."""
    if index is not None:
        index.update(site)
    return FolderScan(site=site, files=tuple(files), index=index)
