"""Queue of studies that wait to be scored; it outlives a crash.

An image stands here once its file would outlast a loss of power, and its sender is told of
success only then. Guarantees, for kills at any moment:

    killed before an image stands here   its sender has no answer and sends it again
    killed before a study is scored      it is scored after the next start
    killed between score and delivery    its results are delivered, and not made twice
    the same image sent again            nothing is scored again
    another image of a scored study      the study is scored anew, as a whole

Paths and UIDs in it never leave this machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.pacs.received_file import Landed
from client.results.identity import Kind
from client.results.writing import Result
from client.site.shared_database import SharedDatabase

#: arriving: not scored as it is now; written: scored, and its results are still to be sent.
State = Literal["arriving", "written", "done", "failed"]

_TABLES = """
CREATE TABLE IF NOT EXISTS study (
    number INTEGER PRIMARY KEY, study TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('arriving', 'written', 'done', 'failed')),
    changed REAL NOT NULL,  -- when its last image came or its state changed, seconds since 1970
    due REAL NOT NULL,  -- when it is looked at next
    images INTEGER NOT NULL DEFAULT 0,  -- rises with every image that came or was replaced
    told TEXT NOT NULL DEFAULT ''  -- why it waits or failed
) STRICT;
CREATE TABLE IF NOT EXISTS image (
    study TEXT NOT NULL REFERENCES study (study) ON DELETE CASCADE, instance TEXT NOT NULL,
    series TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (study, instance)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS result (
    study TEXT NOT NULL REFERENCES study (study) ON DELETE CASCADE, path TEXT NOT NULL,
    kind TEXT NOT NULL, sop_class TEXT, instance TEXT, series TEXT, delivered INTEGER NOT NULL,
    PRIMARY KEY (study, path)
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A study that is looked at now."""

    number: int  # its name in the log, where no identifier may stand
    study: str  # StudyInstanceUID
    state: State
    changed: float  # seconds since 1970
    images: int  # how often an image had come or been replaced when this was read
    files: tuple[Path, ...]
    series: dict[str, int]  # SeriesInstanceUID -> images that came
    own: frozenset[str]  # series of results that we sent of it


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A study as it is shown to the admin."""

    number: int
    study: str
    state: State
    changed: float  # seconds since 1970
    images: int
    told: str


class ArrivalQueue(SharedDatabase):
    """The queue; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            _TABLES,
            synchronous="FULL",
            remedy="Remove it, and have the PACS send again what was not scored; results that it "
            "holds already are not stored twice.",
        )

    def came(self, one: Landed, sha256: str, now: float, due: float) -> bool:
        """Note an image durably; False when the very same was here before."""
        with self._lock, self._database as database:
            held = database.execute(
                "SELECT sha256, path FROM image WHERE study = ? AND instance = ?",
                (one.study, one.instance),
            ).fetchone()
            if held == (sha256, str(one.path)):
                return False
            database.execute(
                "INSERT INTO study (study, state, changed, due) VALUES (?, 'arriving', ?, ?) "
                "ON CONFLICT (study) DO UPDATE SET state = 'arriving', changed = ?2, due = ?3, "
                "told = ''",
                (one.study, now, due),
            )
            database.execute("UPDATE study SET images = images + 1 WHERE study = ?", (one.study,))
            database.execute(
                "INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?)",
                (one.study, one.instance, one.series, str(one.path), sha256),
            )
        return True

    def due(self, now: float) -> Arrived | None:
        """Return the study that has waited longest of those that are to be looked at."""
        with self._lock:
            row = self._database.execute(
                "SELECT number, study, state, changed, images FROM study "
                "WHERE state IN ('arriving', 'written') AND due <= ? ORDER BY due LIMIT 1",
                (now,),
            ).fetchone()
            if row is None:
                return None
            number, study, state, changed, images = row
            held = self._database.execute(
                "SELECT path, series FROM image WHERE study = ? ORDER BY path", (study,)
            ).fetchall()
            own = self._database.execute(
                "SELECT series FROM result WHERE study = ? AND series IS NOT NULL", (study,)
            ).fetchall()
        series: dict[str, int] = {}
        for _, name in held:
            series[name] = series.get(name, 0) + 1
        return Arrived(
            number=number,
            study=study,
            state=state,
            changed=changed,
            images=images,
            files=tuple(Path(path) for path, _ in held),
            series=series,
            own=frozenset(name for (name,) in own),
        )

    def wait(self, one: Arrived, due: float, told: str) -> None:
        """Look at a study again later, and say why."""
        with self._lock, self._database as database:
            database.execute(
                "UPDATE study SET due = ?, told = ? WHERE study = ? AND images = ?",
                (due, told, one.study, one.images),
            )

    def written(self, one: Arrived, results: Iterable[Result], now: float) -> None:
        """Note a study's results; an image that came meanwhile lets it be scored anew."""
        rows = [
            (r.study, str(r.path), r.kind.value, r.sop_class, r.sop_instance, r.series)
            for r in results
        ]
        with self._lock, self._database as database:
            known = database.execute("SELECT 1 FROM study WHERE study = ?", (one.study,))
            if known.fetchone() is None:
                return  # it was removed in the meantime
            # What was said of fewer images and is not sent yet need not be said any more.
            database.execute("DELETE FROM result WHERE study = ? AND NOT delivered", (one.study,))
            database.executemany("INSERT OR IGNORE INTO result VALUES (?, ?, ?, ?, ?, ?, 0)", rows)
            self._set(database, one, "written", now, "")

    def results(self, study: str) -> tuple[Result, ...]:
        """Return all results of a study that are written down."""
        return self._results(study, undelivered=False)

    def undelivered(self, study: str) -> tuple[Result, ...]:
        """Return the results of a study that are still to be sent."""
        return self._results(study, undelivered=True)

    def _results(self, study: str, *, undelivered: bool) -> tuple[Result, ...]:
        with self._lock:
            rows: Sequence[tuple[str, str, str | None, str | None, str | None]] = (
                self._database.execute(
                    # Outlines first: the report refers to them.
                    "SELECT path, kind, sop_class, instance, series FROM result "
                    "WHERE study = ? AND NOT (? AND delivered) ORDER BY kind DESC, path",
                    (study, undelivered),
                ).fetchall()
            )
        return tuple(
            Result(
                path=Path(path),
                kind=Kind(kind),
                sop_class=sop_class,
                sop_instance=instance,
                series=series,
                study=study,
            )
            for path, kind, sop_class, instance, series in rows
        )

    def done(self, one: Arrived, delivered: Iterable[Result], now: float, told: str) -> None:
        """Note that a study is dealt with, and which of its results arrived."""
        with self._lock, self._database as database:
            database.executemany(
                "UPDATE result SET delivered = 1 WHERE study = ? AND path = ?",
                [(r.study, str(r.path)) for r in delivered],
            )
            self._set(database, one, "done", now, told)

    def failed(self, one: Arrived, now: float, told: str) -> None:
        """Note that nothing more is tried unless another image comes."""
        with self._lock, self._database as database:
            self._set(database, one, "failed", now, told)

    @staticmethod
    def _set(
        database: sqlite3.Connection, one: Arrived, state: State, now: float, told: str
    ) -> None:
        # With another image in between, the study is no longer the one that was looked at.
        database.execute(
            "UPDATE study SET state = ?, changed = ?, due = ?, told = ? "
            "WHERE study = ? AND images = ?",
            (state, now, now, told, one.study, one.images),
        )

    def files(self, study: str) -> tuple[Path, ...]:
        """Return where a study's images lie."""
        with self._lock:
            paths = self._database.execute("SELECT path FROM image WHERE study = ?", (study,))
            return tuple(Path(path) for (path,) in paths.fetchall())

    def forget(self, study: str) -> tuple[Path, ...]:
        """Remove a study, and return where its images lie."""
        with self._lock, self._database as database:
            paths = database.execute("SELECT path FROM image WHERE study = ?", (study,)).fetchall()
            database.execute("DELETE FROM study WHERE study = ?", (study,))
        self._leave_no_trace()
        return tuple(Path(path) for (path,) in paths)

    def past(self, before: float) -> tuple[str, ...]:
        """Return the studies that were dealt with before a time."""
        with self._lock:
            rows = self._database.execute(
                "SELECT study FROM study WHERE state IN ('done', 'failed') AND changed < ?",
                (before,),
            ).fetchall()
        return tuple(study for (study,) in rows)

    def listed(self) -> tuple[Listed, ...]:
        """Return every study, oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT number, study, state, changed, told, (SELECT count(*) FROM image "
                "WHERE image.study = study.study) FROM study ORDER BY number"
            ).fetchall()
        return tuple(
            Listed(number=n, study=s, state=state, changed=changed, images=images, told=told)
            for n, s, state, changed, told, images in rows
        )
