"""An SQLite file of a site's queues: one connection shared by several threads.

What is deleted from it is overwritten with zeros; `_leave_no_trace` does so in the log beside it.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from common.platform.errors import StateDamaged


class SharedDatabase:
    """A database that is open inside a with statement; take `_lock` around each use."""

    def __init__(
        self, path: Path, tables: str, *, synchronous: Literal["NORMAL", "FULL"], remedy: str
    ) -> None:
        """Open or make it, for its user alone; StateDamaged ends with the remedy."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(f"PRAGMA synchronous = {synchronous}")
            self._database.execute("PRAGMA foreign_keys = ON")
            self._database.execute("PRAGMA secure_delete = ON")  # withdrawn patients leave no trace
            self._database.executescript(tables)
            path.chmod(0o600)
        except sqlite3.DatabaseError as error:
            message = f"{path} cannot be read: {error}. {remedy}"
            raise StateDamaged(message) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._database.close()

    def _leave_no_trace(self) -> None:
        """Empty the log beside the file, where rows that were deleted may still stand."""
        with self._lock:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
