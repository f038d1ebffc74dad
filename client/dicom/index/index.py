"""Index of a folder's images by their headers; each file is read once.

An SQLite file in WAL mode. A file is known by its path, size and time of change; what is new or
changed is read again, what is gone leaves. A file that is no usable image stands in quarantine
with its reason. The index holds identifiers of patients: it stays at the site, and may be deleted
at any time, as the folder tells it all again.
Of patients who were withdrawn in the home where it lies, it holds paths of files and no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from client.dicom.headers.growing_files import watched
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Change, Counts, Instance, Quarantined, Series, without
from client.dicom.index.database_file import open_database, usable
from client.dicom.index.tables import (
    INSERT_INSTANCE,
    INSERT_QUARANTINE,
    INSTANCES,
    JOINED,
    LEVELS,
    ORPHANS,
    QUARANTINE,
    SERIES,
    STATES,
    Level,
    Row,
    instance_of,
    instance_row,
    patient_row,
    quarantined_of,
    series_of,
    series_row,
    study_row,
)
from client.dicom.reading.files import File, files_below
from client.dicom.reasons import Reason, Unusable
from client.site.withdrawals import withdrawn_near

#: Files whose rows are written in one transaction: what a kill costs.
_BATCH = 512

#: Files that say neither a study nor that they are none of an image.
_NAMELESS = (
    "SELECT path FROM (SELECT * FROM quarantine WHERE study = '' AND reason NOT IN "
    "('WITHDRAWN', 'DICOMDIR') AND (reason != 'NOT_DICOM' OR lower(path) LIKE '%.dcm'))"
)
#: With two bounds.
_BELOW = "WHERE path >= ? AND path < ? ORDER BY path"

#: Called after each batch with the number of files read and of files to read.
Tell = Callable[[int, int], None]
Read = Callable[[File], Instance | Quarantined]


class Index:
    """The index of one or several folders; use it as a context, from one thread."""

    def __init__(self, path: Path, *, read: Read = read_file) -> None:
        self.path = path
        self._read = read
        path.parent.mkdir(parents=True, exist_ok=True)
        with usable(path):
            self._database = open_database(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.close()

    def update(self, folder: Path, tell: Tell | None = None) -> Change:
        """Read what is new or changed below a folder, and forget what is gone from it.

        CohortError when the index cannot be written.
        """
        with usable(self.path):
            return self._update(folder.absolute(), tell)

    def _update(self, folder: Path, tell: Tell | None) -> Change:
        files = files_below(folder)
        known = self._known(folder)
        unread = [f for f in files if known.get(str(f.path)) != (f.size, f.mtime_ns)]
        gone = known.keys() - {str(file.path) for file in files}
        refused: list[Quarantined] = []
        for start in range(0, len(unread), _BATCH):
            batch = unread[start : start + _BATCH]
            found = watched(batch, [self._read(file) for file in batch])
            with self._database:
                self._write(batch, found)
            refused += [one for one in found if isinstance(one, Quarantined)]
            if tell is not None:
                tell(start + len(batch), len(unread))
        if gone:
            with self._database:
                self._remove(sorted(gone))
        return Change(
            files=len(files), read=len(unread), gone=len(gone), quarantined=tuple(refused)
        )

    def instances(self, folder: Path | None = None) -> Iterator[Instance]:
        """Yield every usable image below a folder, or of all, in the order of their paths."""
        for row in self._database.execute(f"{INSTANCES} {_BELOW}", _bounds(folder)):
            yield instance_of(row)

    def look_up(self, path: Path) -> Instance | Quarantined | None:
        """Return what is known of one file."""
        name = (str(path.absolute()),)
        row = self._database.execute(f"{INSTANCES} WHERE path = ?", name).fetchone()
        if row is not None:
            return instance_of(row)
        row = self._database.execute(f"{QUARANTINE} WHERE path = ?", name).fetchone()
        return None if row is None else quarantined_of(row)

    def series(self) -> Iterator[Series]:
        """Yield every series with a usable image, by patient and study."""
        for row in self._database.execute(SERIES):
            yield series_of(row)

    def quarantined(self, folder: Path | None = None) -> tuple[Quarantined, ...]:
        """Return every file that is no usable image, with its reason."""
        rows = self._database.execute(f"{QUARANTINE} {_BELOW}", _bounds(folder))
        return tuple(quarantined_of(row) for row in rows)

    def find_study(self, study: str) -> tuple[Path, ...]:
        """Return the files of a study in the order of their paths; none where no image is usable.

        Those that cannot be used are among them, also such as do not say whose they are in a
        folder of this study alone: what broke must not look absent.
        """
        rows = self._database.execute(f"{INSTANCES} WHERE study = ? ORDER BY path", (study,))
        images = [Path(row["path"]) for row in rows]
        if not images:
            return ()
        broken = self._database.execute("SELECT path FROM quarantine WHERE study = ?", (study,))
        found = {*images, *(Path(row["path"]) for row in broken)}
        folder = Path(os.path.commonpath([path.parent for path in images]))
        for home in (folder.parent, folder):
            if self._is_alone(study, home):
                beside = self._database.execute(f"{_NAMELESS} {_BELOW}", _bounds(home))
                return tuple(sorted({*found, *(Path(row["path"]) for row in beside)}))
        return tuple(sorted(found))

    def _is_alone(self, study: str, folder: Path) -> bool:
        """Return whether no other study has a usable image below a folder."""
        others = f"SELECT 1 {JOINED} WHERE study != ? AND path >= ? AND path < ? LIMIT 1"
        return self._database.execute(others, (study, *_bounds(folder))).fetchone() is None

    def counts(self) -> Counts:
        """Return how much there is."""
        row = self._database.execute(
            "SELECT (SELECT count(DISTINCT patient) FROM patient), (SELECT count(DISTINCT study) "
            "FROM study), (SELECT count(DISTINCT series) FROM series), (SELECT count(*) FROM "
            "instance), (SELECT count(*) FROM quarantine)"
        ).fetchone()
        patients, studies, series, instances, quarantined = row
        return Counts(
            patients=patients,
            studies=studies,
            series=series,
            instances=instances,
            quarantined=quarantined,
        )

    def quarantine(self, image: Instance, problem: Unusable) -> None:
        """Move an image whose pixels turned out to be unusable."""
        with self._database:
            self._remove([str(image.path)])
            self._database.execute(
                INSERT_QUARANTINE,
                (
                    str(image.path),
                    image.size,
                    image.mtime_ns,
                    problem.reason.name,
                    problem.detail,
                    image.patient,
                    image.study,
                    image.series,
                    image.described,
                ),
            )

    def forget_patient(self, patient: str) -> int:
        """Remove a patient from every table, and from the file; return how many files were known.

        The next update would find the files again: who withdraws a patient leaves them out there.
        """
        with self._database:
            paths = [
                row["path"]
                for row in self._database.execute(f"{INSTANCES} WHERE patient = ?", (patient,))
            ]
            held = self._database.execute(
                "SELECT path FROM quarantine WHERE patient = ?", (patient,)
            )
            paths += [row["path"] for row in held]
            self._remove(paths)
        # What was deleted is overwritten (secure_delete), in the log beside the file, too.
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(paths)

    def _known(self, folder: Path) -> dict[str, tuple[int, int]]:
        return {
            row["path"]: (row["size"], row["mtime_ns"])
            for states in STATES
            for row in self._database.execute(f"{states} {_BELOW}", _bounds(folder))
        }

    def _write(self, files: Sequence[File], found: Sequence[Instance | Quarantined]) -> None:
        changed = [str(file.path) for file in files]
        self._remove(changed)
        # Asked for within the transaction: a withdrawal comes before it, or forgets after it.
        found = without(found, withdrawn_near(self.path.absolute()))
        ids: dict[Row, int] = {}
        rows = [
            instance_row(image, self._series_id(image, ids))
            for image in found
            if isinstance(image, Instance)
        ]
        self._database.executemany(INSERT_INSTANCE, rows)
        self._database.executemany(
            INSERT_QUARANTINE,
            [
                (
                    str(file.path),
                    _size(file, one),
                    file.mtime_ns,
                    one.reason.name,
                    one.detail,
                    one.patient,
                    one.study,
                    one.series,
                    one.description,
                )
                for file, one in zip(files, found, strict=True)
                if isinstance(one, Quarantined)
            ],
        )

    def _series_id(self, image: Instance, ids: dict[Row, int]) -> int:
        """Return the series' row; rows of series, study and patient are made where none is."""
        patient = patient_row(image)
        study, series = study_row(image), series_row(image)
        whole = (*patient, *study, *series)
        if whole not in ids:
            place = 0
            for level, row in zip(LEVELS, (patient, study, series), strict=True):
                place = self._row_id(level, row if not place else (place, *row))
            ids[whole] = place
        return ids[whole]

    def _row_id(self, level: Level, values: Row) -> int:
        row = self._database.execute(level.find, values).fetchone()
        if row is not None:
            return int(row["id"])
        return int(self._database.execute(level.insert, values).lastrowid or 0)

    def _remove(self, paths: Sequence[str]) -> None:
        """Remove files, and whatever series, studies and patients are left without any."""
        rows = [(path,) for path in paths]
        removed = self._database.executemany("DELETE FROM instance WHERE path = ?", rows).rowcount
        self._database.executemany("DELETE FROM quarantine WHERE path = ?", rows)
        if removed > 0:
            for orphans in ORPHANS:
                self._database.execute(orphans)


def _bounds(folder: Path | None) -> tuple[str, str]:
    """Return the bounds of the paths below a folder: a range, which the tables' key answers."""
    if folder is None:
        return "", "\U0010ffff"
    inside = f"{folder.absolute()}/"
    return inside, f"{inside[:-1]}0"  # 0 follows / among characters


def _size(file: File, one: Quarantined) -> int:
    """Return the size by which a file is known; one that grows is read again in any case."""
    return -1 if one.reason is Reason.PARTIAL_WRITE else file.size
