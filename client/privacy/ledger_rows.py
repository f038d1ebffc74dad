"""Rows of the ledger's file: appended, and verified as a chain."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from client.privacy.charge_text import Charge, chained, charge_of, text_of_columns
from common.platform.errors import LedgerDamaged, LedgerTooNew, PrivacyError
from common.platform.hash_chain import GENESIS
from common.privacy.plan import LedgerHead, Mechanism

SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (
  number INTEGER PRIMARY KEY,
  cohort TEXT NOT NULL,
  run TEXT NOT NULL,
  round INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  mechanism TEXT NOT NULL,
  previous TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  text TEXT,
  UNIQUE (cohort, run, round, attempt)
) STRICT;
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON charges
BEGIN SELECT RAISE(ABORT, 'a charge is never changed'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON charges
BEGIN SELECT RAISE(ABORT, 'a charge is never removed'); END;
"""


def add_text(connection: sqlite3.Connection) -> None:
    """Give a ledger of release 0.1.0 the column for texts; its charges stay as they are."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        columns = connection.execute("SELECT name FROM pragma_table_info('charges')").fetchall()
        if ("text",) not in columns:
            connection.execute("ALTER TABLE charges ADD COLUMN text TEXT")
    finally:
        connection.execute("COMMIT")


def append(connection: sqlite3.Connection, charge: Charge) -> LedgerHead:
    """Add a charge behind the last, or behind those that it declares lost; returns where it is."""
    last, text = last_of(connection), charge.text()
    head = LedgerHead(
        charges=max(last.charges, charge.lost_up_to) + 1, hash=chained(last.hash, text)
    )
    connection.execute(
        "INSERT INTO charges (number, cohort, run, round, attempt, mechanism, previous, hash, "
        "text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (head.charges, *charge.columns(), last.hash, head.hash, text),
    )
    return head


def last_of(connection: sqlite3.Connection) -> LedgerHead:
    """Return where the ledger stands."""
    found = connection.execute(
        "SELECT number, hash FROM charges ORDER BY number DESC LIMIT 1"
    ).fetchone()
    number, last = found or (0, GENESIS)
    return LedgerHead(charges=int(number), hash=str(last))


@dataclass(frozen=True, kw_only=True)
class LedgerState:
    """A ledger as it stood at one reading, its whole chain verified."""

    charges: tuple[Charge, ...]  # oldest first
    heads: tuple[LedgerHead, ...]  # where it stood after each of them

    @property
    def head(self) -> LedgerHead:
        """Where it stands."""
        return self.heads[-1] if self.heads else LedgerHead(charges=0, hash=GENESIS)

    def knows(self, head: LedgerHead) -> bool:
        """Return whether it once stood at `head`, or makes up for its loss."""
        if head in {LedgerHead(charges=0, hash=GENESIS), *self.heads}:
            return True
        before = [0, *(one.charges for one in self.heads)]
        return any(
            one.makes_up_for(head, earlier)
            for one, earlier in zip(self.charges, before, strict=False)
        )

    def accounts(self) -> dict[str, dict[str, tuple[Mechanism, ...]]]:
        """Return every mechanism by cohort and by run, oldest first."""
        found: dict[str, dict[str, tuple[Mechanism, ...]]] = {}
        for charge in self.charges:
            runs = found.setdefault(charge.cohort, {})
            runs[charge.run] = (*runs.get(charge.run, ()), charge.mechanism)
        return found


def verified(connection: sqlite3.Connection, path: Path) -> LedgerState:
    """Return the ledger after checking the whole chain."""
    charges: list[Charge] = []
    heads: list[LedgerHead] = []
    previous, last = GENESIS, 0
    try:
        rows = connection.execute(
            "SELECT number, previous, hash, text, cohort, run, round, attempt, mechanism "
            "FROM charges ORDER BY number"
        ).fetchall()
        for number, before, found, text, *columns in rows:
            stored = text_of_columns(*columns) if text is None else text
            if before != previous or found != chained(previous, stored):
                raise _damage(path, last + 1)
            charge = charge_of(stored)
            if (
                number != max(last, charge.lost_up_to) + 1
                or columns[4] not in stored
                or columns[:4] != list(charge.columns()[:4])
            ):
                raise _damage(path, last + 1)
            charges.append(charge)
            heads.append(LedgerHead(charges=number, hash=found))
            previous, last = found, number
    except LedgerTooNew as error:
        raise _too_new(path, last + 1, str(error)) from error
    except LedgerDamaged:
        raise
    except (sqlite3.DatabaseError, ValueError, TypeError, PrivacyError) as error:
        raise _damage(path, last + 1) from error
    return LedgerState(charges=tuple(charges), heads=tuple(heads))


def _too_new(path: Path, place: int, facts: str) -> LedgerTooNew:
    message = (
        f"{path}, charge {place} was made by a newer release of Wardround: this one does not know "
        f"{facts}. The ledger is sound, and nothing was charged or released. Install that release."
    )
    return LedgerTooNew(message)


def _damage(path: Path, place: int) -> LedgerDamaged:
    message = (
        f"{path}, charge {place} does not follow the charge before it: the ledger was changed "
        "outside Wardround. Nothing is released until the newest sound copy is put back."
    )
    return LedgerDamaged(message)
