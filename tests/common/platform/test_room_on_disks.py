from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from common.platform import durable_files
from common.platform.durable_files import is_for_want_of_room, room_left
from common.platform.errors import StateDamaged


def failed(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - this is what is looked at
        return error
    pytest.fail("it did not fail")


def fill_a_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA max_page_count = 2")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")


def test_a_full_disk_is_known_in_each_ones_words(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    sqlite = failed(lambda: fill_a_database(tmp_path / "small.db"))
    wrapped = StateDamaged("the ledger cannot be written")
    wrapped.__cause__ = sqlite
    for error in (full, sqlite, wrapped, OperationalError("INSERT", {}, sqlite)):
        assert is_for_want_of_room(error, tmp_path)
    for error in (OSError(errno.EIO, "broken"), ValueError("full"), sqlite3.OperationalError("x")):
        assert not is_for_want_of_room(error, tmp_path)


def test_what_fails_while_there_is_no_room_may_have_failed_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert room_left(tmp_path / "not" / "there" / "yet") == pytest.approx(
        room_left(tmp_path), rel=0.1
    )
    monkeypatch.setattr(
        durable_files.os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=4096)
    )
    assert is_for_want_of_room(ValueError("an odd file"), tmp_path)
