"""SQLite files whose commits are durable, and their errors in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from common.platform.errors import WardroundError

#: How long a command waits for others that hold the file.
PATIENCE_SECONDS = 30.0


def connected(
    path: Path, *, patience_seconds: float = PATIENCE_SECONDS, autocommit: bool = False
) -> sqlite3.Connection:
    """Open or make a file; with `autocommit` transactions begin where a statement says so."""
    isolation: Literal["DEFERRED"] | None = None if autocommit else "DEFERRED"
    connection = sqlite3.connect(path, timeout=patience_seconds, isolation_level=isolation)
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def opened(
    path: Path,
    explain: Callable[[sqlite3.DatabaseError], WardroundError],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    autocommit: bool = False,
) -> Iterator[sqlite3.Connection]:
    """Open a file for one use and close it; SQLite's errors in it become the caller's."""
    with (
        explained(explain),
        closing(
            connected(path, patience_seconds=patience_seconds, autocommit=autocommit)
        ) as connection,
    ):
        yield connection


@contextmanager
def explained(explain: Callable[[sqlite3.DatabaseError], WardroundError]) -> Iterator[None]:
    """Raise what SQLite's errors become; a lock that somebody holds is an OperationalError."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise explain(error) from error


@contextmanager
def transaction(
    connection: sqlite3.Connection,
    explained: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[None]:
    """Hold the write lock from the first read to the commit; nothing is written on an error.

    The connection is one with `autocommit`; `explained` is around its beginning and its commit.
    """
    with explained():
        connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    with explained():
        connection.execute("COMMIT")
