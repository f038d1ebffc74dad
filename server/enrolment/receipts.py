"""Receipts that the coordinator keeps for sites, over all runs.

A site compares it with its own records before it spends anything
(client/governance/records_check.py), so an old copy that was restored there shows in the next run.
The coordinator cannot read what it seals.

    two runs at once                 one transaction at a time
    an answer that was sent before   has fewer charges than the receipt that is kept: it stays
    this file from a backup          its receipts are older than the sites' records: no harm
    a site with a new key            gets the last receipt of its name, until it gives its own
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from common.messages.receipt import Receipt, read_receipt
from common.platform.errors import AnswerNotAdmitted, StateDamaged
from common.platform.sqlite_file import opened
from common.privacy.plan import LedgerHead

_PATIENCE_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
  site TEXT NOT NULL,
  public_key TEXT NOT NULL,
  charges INTEGER NOT NULL,
  hash TEXT NOT NULL,
  sealed TEXT NOT NULL,
  at REAL NOT NULL,
  PRIMARY KEY (site, public_key)
) STRICT;
"""


class ReceiptStore:
    """An SQLite file; every method opens and closes it."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with self._connected() as connection:
            connection.executescript(_SCHEMA)

    def keep(self, site: str, public_key: str, text: str) -> None:
        """Keep a site's receipt durably; what is none, or older than the last, is passed over."""
        try:
            receipt = read_receipt(text)
        except AnswerNotAdmitted:
            return
        with self._connected() as connection:
            connection.execute(
                "INSERT INTO receipts (site, public_key, charges, hash, sealed, at) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (site, public_key) DO UPDATE SET "
                "charges = excluded.charges, hash = excluded.hash, sealed = excluded.sealed, "
                "at = excluded.at WHERE excluded.charges >= receipts.charges",
                (
                    site,
                    public_key,
                    receipt.ledger.charges,
                    receipt.ledger.hash,
                    receipt.sealed,
                    self._clock(),
                ),
            )

    def of(self, site: str, public_key: str) -> str:
        """Return what is to be sent with a request to a site; empty where it gave nothing yet."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT charges, hash, sealed FROM receipts WHERE site = ? "
                "ORDER BY public_key = ? DESC, at DESC LIMIT 1",
                (site, public_key),
            ).fetchone()
        if row is None:
            return ""
        charges, found, sealed = row
        return Receipt(ledger=LedgerHead(charges=charges, hash=found), sealed=sealed).text()

    def _connected(self) -> AbstractContextManager[sqlite3.Connection]:
        return opened(
            self._path, self._explain, patience_seconds=_PATIENCE_SECONDS, autocommit=True
        )

    def _explain(self, error: sqlite3.DatabaseError) -> StateDamaged:
        return StateDamaged(
            f"The receipts of sites {self._path} cannot be used: {error}. Put the last copy back, "
            "or remove the file: sites give new ones with their next answers."
        )
