"""Queue of the series to fetch; a pull goes on from it after a crash.

An instance is written here once its file is whole and has its name, and never before; so what
stands here is never asked for again, and what does not is. After the machine itself went down,
files that had not been flushed to the disk no longer stand here (flushing.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.pacs.image_source import RemoteSeries
from client.pacs.received_file import Landed
from client.site.shared_database import SharedDatabase

State = Literal["waiting", "complete", "incomplete"]

_TABLES = """
CREATE TABLE IF NOT EXISTS series (
    series TEXT PRIMARY KEY, study TEXT NOT NULL, patient TEXT NOT NULL, accession TEXT NOT NULL,
    modality TEXT NOT NULL, stated INTEGER,  -- NumberOfSeriesRelatedInstances
    wanted INTEGER NOT NULL,  -- by the last selection
    state TEXT NOT NULL CHECK (state IN ('waiting', 'complete', 'incomplete')),
    told TEXT NOT NULL  -- why it is incomplete
) STRICT;
CREATE TABLE IF NOT EXISTS instance (
    series TEXT NOT NULL REFERENCES series ON DELETE CASCADE, instance TEXT NOT NULL,
    size INTEGER NOT NULL,  -- bytes
    boot TEXT NOT NULL,  -- start of the machine in whose memory it may be; empty: on the disk
    PRIMARY KEY (series, instance)
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How far the wanted series are."""

    series: int
    complete: int
    incomplete: tuple[tuple[RemoteSeries, str], ...]  # and why
    instances: int  # on disk
    stated: int  # by the PACS, where it says
    size: int  # bytes on disk

    @property
    def waiting(self) -> int:
        """Series that are still to be fetched."""
        return self.series - self.complete - len(self.incomplete)


class Queue(SharedDatabase):
    """The queue of a site; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._taken: set[str] = set()
        super().__init__(
            # NORMAL: what a loss of power takes back is found again among the files.
            path,
            _TABLES,
            synchronous="NORMAL",
            remedy="Remove it; files that were fetched are found again and not fetched twice.",
        )

    def offer(self, found: Iterable[RemoteSeries]) -> None:
        """Replace what is wanted; what grew or was incomplete waits again."""
        rows = [(s.series, s.study, s.patient, s.accession, s.modality, s.instances) for s in found]
        with self._lock, self._database as database:
            database.execute("UPDATE series SET wanted = 0")
            database.executemany(
                "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, 1, 'waiting', '') "
                "ON CONFLICT (series) DO UPDATE SET wanted = 1, told = '', "
                "state = CASE WHEN state = 'complete' AND stated IS excluded.stated "
                "THEN 'complete' ELSE 'waiting' END, stated = excluded.stated",
                rows,
            )

    def take(self) -> RemoteSeries | None:
        """Return a series that waits and that no other thread has; None when there is none."""
        with self._lock, closing(self._database.cursor()) as cursor:
            cursor.execute(
                "SELECT patient, accession, study, series, modality, stated FROM series "
                "WHERE wanted AND state = 'waiting' ORDER BY rowid"
            )
            for row in cursor:
                series = _series(row)
                if series.series not in self._taken:
                    self._taken.add(series.series)
                    return series
        return None

    def put_back(self, series: RemoteSeries) -> None:
        """Let a series wait again."""
        with self._lock:
            self._taken.discard(series.series)

    def here(self, series: RemoteSeries) -> frozenset[str]:
        """Return the SOP Instance UIDs that are on disk."""
        with self._lock:
            found = self._database.execute(
                "SELECT instance FROM instance WHERE series = ?", [series.series]
            )
            return frozenset(row[0] for row in found)

    def acknowledge(self, landed: Iterable[Landed], boot: str) -> None:
        """Write down instances whose files are whole, during this start of the machine."""
        rows = [(one.series, one.instance, one.size, boot) for one in landed]
        with self._lock, self._database as database:
            database.executemany("INSERT OR REPLACE INTO instance VALUES (?, ?, ?, ?)", rows)

    def flushed(self, landed: Iterable[Landed]) -> None:
        """Note that their files would outlast a loss of power."""
        rows = [(one.series, one.instance) for one in landed]
        with self._lock, self._database as database:
            database.executemany(
                "UPDATE instance SET boot = '' WHERE series = ? AND instance = ?", rows
            )

    def after_start(self, boot: str) -> None:
        """Take back what was in the memory of an earlier start, and let its series wait."""
        with self._lock, self._database as database:
            database.execute(
                "UPDATE series SET state = 'waiting' WHERE series IN "
                "(SELECT series FROM instance WHERE boot NOT IN ('', ?))",
                [boot],
            )
            database.execute("DELETE FROM instance WHERE boot NOT IN ('', ?)", [boot])

    def lost(self, series: RemoteSeries, instances: Iterable[str]) -> None:
        """Take back instances whose files are gone."""
        rows = [(series.series, one) for one in instances]
        with self._lock, self._database as database:
            database.executemany("DELETE FROM instance WHERE series = ? AND instance = ?", rows)
            database.execute(
                "UPDATE series SET state = 'waiting' WHERE series = ?", [series.series]
            )

    def finish(self, series: RemoteSeries, state: State, told: str = "") -> None:
        """Close a series for this pull."""
        with self._lock, self._database as database:
            self._taken.discard(series.series)
            database.execute(
                "UPDATE series SET state = ?, told = ? WHERE series = ?",
                [state, told, series.series],
            )

    def complete(self) -> tuple[RemoteSeries, ...]:
        """Return the wanted series that are complete."""
        return tuple(_series(row) for row in self._rows("complete"))

    def forget(self, patient: str) -> tuple[tuple[str, str], ...]:
        """Take a patient out for good; return study and series of what was fetched of them."""
        with self._lock, self._database as database:
            found = database.execute(
                "SELECT study, series FROM series WHERE patient = ?", [patient]
            ).fetchall()
            database.execute("DELETE FROM series WHERE patient = ?", [patient])
        self._leave_no_trace()
        return tuple((study, series) for study, series in found)

    def counted(self) -> Counted:
        """Return how far it is."""
        incomplete = tuple((_series(row), str(row[6])) for row in self._rows("incomplete"))
        with self._lock:
            series, complete, stated = self._database.execute(
                "SELECT count(*), total(state = 'complete'), total(stated) FROM series WHERE wanted"
            ).fetchone()
            instances, size = self._database.execute(
                "SELECT count(*), total(size) FROM instance JOIN series USING (series) WHERE wanted"
            ).fetchone()
        return Counted(
            series=series,
            complete=int(complete),
            incomplete=incomplete,
            instances=instances,
            stated=int(stated),
            size=int(size),
        )

    def _rows(self, state: State) -> list[tuple[str, str, str, str, str, int | None, str]]:
        with self._lock:
            return self._database.execute(
                "SELECT patient, accession, study, series, modality, stated, told FROM series "
                "WHERE wanted AND state = ? ORDER BY rowid",
                [state],
            ).fetchall()


def _series(row: tuple[str, str, str, str, str, int | None, *tuple[str, ...]]) -> RemoteSeries:
    patient, accession, study, series, modality, stated = row[:6]
    return RemoteSeries(
        patient=patient,
        accession=accession,
        study=study,
        series=series,
        modality=modality,
        instances=stated,
    )
