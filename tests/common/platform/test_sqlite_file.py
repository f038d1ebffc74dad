"""Files that must last are opened in one way and say what is wrong with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from client.governance.approvals import Approvals
from client.privacy.ledger import Ledger
from client.privacy.repeated_answers import AnswersInFile
from common.platform.errors import LedgerDamaged, PrivacyError, StateDamaged, WardroundError
from common.platform.sqlite_file import connected, opened
from server.enrolment.receipts import ReceiptStore
from server.enrolment.registry import Enrolment

Opens = Callable[[Path], object]
KEPT: dict[str, tuple[Opens, type[WardroundError]]] = {
    "ledger": (Ledger, LedgerDamaged),
    "answers": (AnswersInFile, StateDamaged),
    "approvals": (Approvals, StateDamaged),
    "receipts": (ReceiptStore, StateDamaged),
    "enrolment": (Enrolment, StateDamaged),
}


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_commit_is_on_disk_when_it_returns(tmp_path: Path, autocommit: bool) -> None:  # noqa: FBT001 - both
    with closing(connected(tmp_path / "a.db", autocommit=autocommit)) as connection:
        full = 2  # https://sqlite.org/pragma.html#pragma_synchronous
        assert connection.execute("PRAGMA synchronous").fetchone() == (full,)
        assert (connection.isolation_level is None) is autocommit


def test_what_fails_inside_is_undone_and_becomes_the_callers_error(tmp_path: Path) -> None:
    def explain(error: sqlite3.DatabaseError) -> StateDamaged:
        return StateDamaged(f"here: {error}")

    path = tmp_path / "a.db"
    with opened(path, explain) as connection, connection:
        connection.execute("CREATE TABLE a (x INTEGER PRIMARY KEY)")

    def insert_twice() -> None:
        with opened(path, explain) as connection, connection:
            connection.execute("INSERT INTO a VALUES (1)")
            connection.execute("INSERT INTO a VALUES (1)")

    with pytest.raises(StateDamaged, match="here: UNIQUE"):
        insert_twice()
    with opened(path, explain) as connection:
        assert connection.execute("SELECT * FROM a").fetchall() == []


@pytest.mark.parametrize("name", KEPT)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, name: str) -> None:
    opens, damage = KEPT[name]
    path = tmp_path / "kept.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(damage, match=r"kept\.db"):
        opens(path)


@pytest.mark.parametrize("name", KEPT)
def test_a_file_that_somebody_holds_is_waited_for_and_is_no_damage(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, damage = KEPT[name]
    path = tmp_path / "kept.db"
    opens(path)
    waited: list[float] = []
    real = sqlite3.connect

    def soon(place: Path, *, timeout: float, isolation_level: object) -> sqlite3.Connection:
        waited.append(timeout)
        return real(place, timeout=0.01, isolation_level=isolation_level)  # type: ignore[arg-type]

    monkeypatch.setattr("common.platform.sqlite_file.sqlite3.connect", soon)
    with closing(real(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(WardroundError, match="locked") as raised:
            opens(path)
        holder.execute("ROLLBACK")
    assert min(waited) >= 10
    assert damage is StateDamaged or type(raised.value) is PrivacyError
