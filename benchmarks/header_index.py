"""The index of a folder's headers against the same index on pydicom's, one thread.

    python benchmarks/header_index.py

600 CT slices of six patients, with headers of about 120 elements as scanners write them. Both
sides walk the folder, read each header (ours by the scanner, the peer by `dcmread` with
`stop_before_pixels`), make the same rows of them and write these to SQLite in the same way. That
every row of every table is the same is checked before anything is timed. The floor reads the
first 8 KB of each file and does nothing with them. Times are medians over turns.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread

sys.path.insert(0, str(Path(__file__).parents[1]))

from ct_files import noise, write_series
from row import Row, shown, told

from client.dicom.headers.checks import PixelElement, Scan
from client.dicom.headers.elements import Parsed
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance, describe
from client.dicom.index.index import Index
from client.dicom.reading.files import File, files_below

SERIES, SLICES, SIDE = 6, 100, 128
REPEATS = 7
TABLES = ("patient", "study", "series", "instance", "quarantine")


def rows() -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        for series in range(SERIES):
            write_series(site / f"{series}", noise(SLICES, SIDE, SIDE, seed=series), series)
        _check_equal(site, Path(folder))
        ours, theirs, floor = _seconds(site, Path(folder))
    files = SERIES * SLICES
    return [
        shown(
            Row(
                name="Header index: ours / stop_before_pixels",
                measured=theirs / ours,
                relation=">=",
                goal=3.0,
                detail=f"{files / ours:.0f} and {files / theirs:.0f} files a second, rows "
                "identical",
            )
        ),
        shown(
            Row(
                name="Header index: ours / first 8 KB read",
                measured=ours / floor,
                detail=f"the floor reads {files / floor:.0f} files a second",
            )
        ),
    ]


def _by_pydicom(file: File) -> Instance:
    """Return a file's row by pydicom, without any of the checks that a product needs."""
    with file.path.open("rb") as opened:
        dataset = dcmread(opened, stop_before_pixels=True)
        place, head = opened.tell(), opened.read(12)
    length = int.from_bytes(head[8:12], "little")
    meta = dataset.file_meta
    return describe(
        file,
        Scan(
            elements=Parsed(dataset),
            syntax=str(meta.TransferSyntaxUID),
            media_class=str(meta.MediaStorageSOPClassUID),
            pixels=PixelElement(tag=0x7FE00010, start=place + 12, length=length),
        ),
    )


def _check_equal(site: Path, folder: Path) -> None:
    """Look whether both leave the same rows."""
    contents = []
    for name, read in (("ours", read_file), ("theirs", _by_pydicom)):
        with Index(folder / f"{name}.db", read=read) as index:
            index.update(site)
        with sqlite3.connect(folder / f"{name}.db") as database:
            contents.append(
                [
                    database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608
                    for table in TABLES
                ]
            )
    if contents[0] != contents[1] or len(contents[0][3]) != SERIES * SLICES:
        message = "the scanner's rows are not pydicom's"
        raise ValueError(message)


def _seconds(site: Path, folder: Path) -> tuple[float, float, float]:
    """Return the time of ours, of the peer's and of the floor."""

    def timed(run: Callable[[], None]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    number = iter(range(10**6))

    def ours() -> None:
        with Index(folder / f"{next(number)}.db") as index:
            index.update(site)

    def theirs() -> None:
        with Index(folder / f"{next(number)}.db", read=_by_pydicom) as index:
            index.update(site)

    def floor() -> None:
        for file in files_below(site):
            with file.path.open("rb", buffering=0) as opened:
                opened.read(8192)

    spent = [[timed(run) for run in (ours, theirs, floor)] for _ in range(REPEATS)]
    a, b, c = np.median(spent, axis=0).tolist()
    return a, b, c


if __name__ == "__main__":
    told(rows)
