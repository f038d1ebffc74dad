"""The index's database file: opened, and made anew where it is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.dicom.index.tables import SCHEMA, VERSION
from common.platform.errors import CohortError


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Say what is wrong with the file, and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        message = (
            f"Cannot use the index {path}: {error}. Free space there, or delete it while nothing "
            f"runs; it is made anew from the images."
        )
        raise CohortError(message) from error


def open_database(path: Path) -> sqlite3.Connection:
    """Return the database, made anew where it is of another version or damaged."""
    for _ in range(2):
        database = sqlite3.connect(path, timeout=60)
        database.row_factory = sqlite3.Row
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA secure_delete = ON")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                _make(database)
                return database
            if version == VERSION:
                database.execute("SELECT count(*) FROM quarantine")
                return database
            database.close()
        except sqlite3.OperationalError:  # locked, or the disk is full: not the file's fault
            database.close()
            raise
        except sqlite3.DatabaseError:
            database.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    message = f"{path} cannot be written"
    raise sqlite3.DatabaseError(message)


def _make(database: sqlite3.Connection) -> None:
    """Create the tables; of two processes, one does."""
    database.execute("BEGIN IMMEDIATE")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {VERSION}")
    database.commit()
