"""Approvals: configurations that were proposed to this hospital, and what its people decided.

Guarantee: an approval is of one configuration's hash, taken over every value of what is trained
(`RunConfig.in_force`), and of one seed. Any change is another hash, which nobody has approved.

    one value of an approved run is changed      waiting again; `difference` shows the value
    another seed                                 waiting again; approved, both seeds are
    approved before anybody asked                of the seed that first has something released
    two runs of the same configuration and seed  one decision
    a decision is changed                        the last one counts; all are kept, with their time
    the privacy section overrules another        what is in force is approved, however it is written
    a coordinator asks for ever other runs       what somebody decided on, or what was released, is
                                                 kept; of the rest the last (`_MOST_OPEN`)
    newer decisions are lost (`void`)            nothing is approved any more, refusals stay
"""

from __future__ import annotations

import getpass
import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.config.run_config import RunConfig, read_config
from common.platform.errors import ConfigurationError, StateDamaged
from common.platform.hash_chain import now
from common.platform.sqlite_file import opened

Decision = Literal["approved", "declined", "waiting"]

#: Configurations that wait for somebody; the oldest is forgotten until it is asked for again.
_MOST_OPEN = 200
#: Configurations that were taken without anybody's decision; further ones wait for one.
_MOST_TAKEN = 1000
#: Runs, and seeds, that are listed of a configuration: the last.
_MOST_RUNS = 50
_SCHEMA = """
CREATE TABLE IF NOT EXISTS configurations (
  fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, content TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS proposals (
  number INTEGER PRIMARY KEY, run TEXT NOT NULL, fingerprint TEXT NOT NULL, since TEXT NOT NULL,
  UNIQUE (run, fingerprint)
) STRICT;
CREATE TABLE IF NOT EXISTS decisions (
  number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL,
  decision TEXT NOT NULL CHECK (decision IN ('approved', 'declined')),
  at TEXT NOT NULL, by TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS seeds (
  number INTEGER PRIMARY KEY, run TEXT NOT NULL, fingerprint TEXT NOT NULL, seed TEXT NOT NULL,
  UNIQUE (run, fingerprint, seed)
) STRICT;
CREATE TABLE IF NOT EXISTS approved_seeds (decision INTEGER PRIMARY KEY, seed TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS taken (fingerprint TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS voided (up_to INTEGER NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'a decision is never changed'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'a decision is never removed'); END;
"""
_LISTED = """
SELECT p.run, c.fingerprint, c.name, c.content, coalesce(p.since, d.at),
  (SELECT seed FROM seeds s WHERE s.run = p.run AND s.fingerprint = c.fingerprint
   ORDER BY s.number DESC LIMIT 1)
FROM configurations c
LEFT JOIN proposals p ON p.fingerprint = c.fingerprint
LEFT JOIN decisions d ON d.number =
  (SELECT max(number) FROM decisions WHERE fingerprint = c.fingerprint)
ORDER BY p.number IS NULL, p.number, c.rowid
"""
_DECISIONS = """
SELECT d.number, d.decision, a.seed FROM decisions d
LEFT JOIN approved_seeds a ON a.decision = d.number WHERE d.fingerprint = ?
AND (d.decision = 'declined' OR d.number > (SELECT coalesce(max(up_to), 0) FROM voided))
ORDER BY d.number DESC
"""
_ALL_DECISIONS = "SELECT fingerprint, decision, at, by FROM decisions ORDER BY number LIMIT ?"
_FORGET_OPEN = """
DELETE FROM configurations WHERE fingerprint IN (
  SELECT fingerprint FROM configurations
  WHERE fingerprint NOT IN (SELECT fingerprint FROM decisions)
  AND fingerprint NOT IN (SELECT fingerprint FROM taken) AND fingerprint != ?
  ORDER BY rowid DESC LIMIT -1 OFFSET ?)
"""
_FORGET_RUNS = """
DELETE FROM {0} WHERE fingerprint NOT IN (SELECT fingerprint FROM configurations)
OR (fingerprint = ? AND number NOT IN
    (SELECT number FROM {0} WHERE fingerprint = ? ORDER BY number DESC LIMIT ?))
"""
_TAKE = "INSERT OR IGNORE INTO taken SELECT ? WHERE (SELECT count(*) FROM taken) < ?"
_LAST_APPROVED = """
SELECT c.content FROM decisions d JOIN configurations c ON c.fingerprint = d.fingerprint
WHERE c.name = ? AND c.fingerprint != ? AND d.decision = 'approved' ORDER BY d.number DESC LIMIT 1
"""


@dataclass(frozen=True, kw_only=True)
class KnownConfiguration:
    """A configuration that a run proposed, or that was decided on in advance."""

    run: str | None  # None: no run has asked yet
    name: str  # of the configuration
    fingerprint: str
    since: str  # when it was first asked for, or decided on; UTC, ISO 8601
    decision: Decision  # on this configuration with this seed
    seed: int | None  # the last that this run asked with; None: not known
    config: RunConfig | None  # None: written by another release, or not what the hash is of


@dataclass(frozen=True, kw_only=True)
class ApprovalsHead:
    """Where the decisions stand."""

    decisions: int = 0
    hash: str = ""  # SHA-256 over all of them, in hex
    bound: int = 0  # approvals that became those of one seed


class Approvals:
    """An SQLite file; every method opens and closes it, so that daemon and commands share it."""

    def __init__(self, path: Path, *, clock: Callable[[], str] = now) -> None:
        self._path = path
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.executescript(_SCHEMA)

    def note(self, run: str, config: RunConfig, seed: int = 0) -> None:
        """Remember that a run asks for this; asking again changes nothing."""
        config = config.in_force()
        with self._open() as connection, connection:
            _keep(connection, config)
            connection.execute(
                "INSERT OR IGNORE INTO proposals (run, fingerprint, since) VALUES (?, ?, ?)",
                (run, config.fingerprint(), self._clock()),
            )
            connection.execute(
                "INSERT OR IGNORE INTO seeds (run, fingerprint, seed) VALUES (?, ?, ?)",
                (run, config.fingerprint(), str(seed)),
            )
            _forget(connection, config.fingerprint())

    def take(self, fingerprint: str) -> bool:
        """Keep what is released without anybody's decision; False where it must wait for one."""
        with self._open() as connection, connection:
            connection.execute(_TAKE, (fingerprint, _MOST_TAKEN))
            known = "SELECT 1 FROM taken WHERE fingerprint = ?"
            return connection.execute(known, (fingerprint,)).fetchone() is not None

    def decide(
        self, fingerprint: str, decision: Literal["approved", "declined"], seed: int | None = None
    ) -> None:
        """Record what somebody here said; ConfigurationError for what was never shown here."""
        with self._open() as connection, connection:
            known = "SELECT 1 FROM configurations WHERE fingerprint = ?"
            if connection.execute(known, (fingerprint,)).fetchone() is None:
                message = (
                    f"No configuration with hash {fingerprint[:16]}... was proposed here. "
                    "`wardround-site runs` lists those that were."
                )
                raise ConfigurationError(message)
            self._decide(connection, fingerprint, decision, seed)

    def decide_ahead(
        self, config: RunConfig, decision: Literal["approved", "declined"], seed: int | None = None
    ) -> str:
        """Record a decision on a configuration that a run may ask for later; returns its hash.

        Without a seed it is of the first that has something released.
        """
        config = config.in_force()
        with self._open() as connection, connection:
            _keep(connection, config)
            self._decide(connection, config.fingerprint(), decision, seed)
        return config.fingerprint()

    def decision(
        self, fingerprint: str, seed: int | None = None, *, takes_up: bool = False
    ) -> Decision:
        """Return what was said last of a configuration, by the hash of what is in force.

        With `takes_up` an approval that was of no seed yet becomes one of this.
        """
        with self._open() as connection, connection:
            number, decision, bound = _last_of(connection, fingerprint, seed)
            if takes_up and decision == "approved" and bound is None:
                _bind(connection, number, seed)
        return decision

    def head(self, decisions: int = -1) -> ApprovalsHead:
        """Return where the decisions stand, or stood after the first so many of them."""
        with self._open() as connection:
            rows = connection.execute(_ALL_DECISIONS, (decisions,)).fetchall()
            (bound,) = connection.execute("SELECT count(*) FROM approved_seeds").fetchone()
        found = hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else ""
        return ApprovalsHead(decisions=len(rows), hash=found, bound=bound)

    def knows(self, told: ApprovalsHead) -> bool:
        """Return whether the decisions once stood there and nothing of it is lost."""
        then = self.head(told.decisions)
        return (then.decisions, then.hash) == (told.decisions, told.hash) and (
            then.bound >= told.bound
        )

    def void(self) -> None:
        """Let no approval of before count any more: those that took one back may be lost."""
        with self._open() as connection, connection:
            connection.execute("INSERT INTO voided SELECT coalesce(max(number), 0) FROM decisions")

    def listed(self) -> tuple[KnownConfiguration, ...]:
        """Return what was proposed, oldest first, then what was decided on in advance."""
        with self._open() as connection:
            return tuple(_seen(connection, row) for row in connection.execute(_LISTED).fetchall())

    def difference(self, config: RunConfig) -> list[str]:
        """Return each value that is not as in the last approved configuration of this name."""
        config = config.in_force()
        before = self._last_approved(config)
        if before is None:
            return []
        old, new = (_flat(json.loads(text)) for text in (before, config.canonical_json()))
        return [
            f"{key}: {old.get(key, 'not given')} -> {new.get(key, 'not given')}"
            for key in dict.fromkeys([*new, *old])
            if old.get(key) != new.get(key)
        ]

    def _last_approved(self, config: RunConfig) -> str | None:
        with self._open() as connection:
            row = connection.execute(_LAST_APPROVED, (config.name, config.fingerprint())).fetchone()
        return None if row is None else str(row[0])

    def _decide(
        self, connection: sqlite3.Connection, fingerprint: str, decision: str, seed: int | None
    ) -> None:
        made = connection.execute(
            "INSERT INTO decisions (fingerprint, decision, at, by) VALUES (?, ?, ?, ?)",
            (fingerprint, decision, self._clock(), getpass.getuser()),
        )
        if seed is not None and decision == "approved":
            _bind(connection, made.lastrowid, seed)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        """Open the file; StateDamaged says what keeps it from being used."""
        return opened(self._path, self._explain)

    def _explain(self, error: sqlite3.DatabaseError) -> StateDamaged:
        if isinstance(error, sqlite3.OperationalError):
            return StateDamaged(
                f"The approvals {self._path} cannot be used: {error}. See that there is room on "
                "the disk and that the user who runs this may write the folder."
            )
        return StateDamaged(
            f"{self._path} holds no approvals: {error}. Put the newest sound copy back; if there "
            "is none, move it away and type `wardround-site records --declare-lost`: every run is "
            "asked for again."
        )


def _keep(connection: sqlite3.Connection, config: RunConfig) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO configurations (fingerprint, name, content) VALUES (?, ?, ?)",
        (config.fingerprint(), config.name, config.canonical_json()),
    )


def _forget(connection: sqlite3.Connection, last: str) -> None:
    """Forget what nobody decided on and nothing came of, beyond the last; `last` is the newest."""
    connection.execute(_FORGET_OPEN, (last, _MOST_OPEN - 1))
    for table in ("proposals", "seeds"):
        connection.execute(_FORGET_RUNS.format(table), (last, last, _MOST_RUNS))


def _bind(connection: sqlite3.Connection, decision: int | None, seed: int | None) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO approved_seeds (decision, seed) VALUES (?, ?)", (decision, str(seed))
    )


def _last_of(
    connection: sqlite3.Connection, fingerprint: str, seed: int | None
) -> tuple[int | None, Decision, str | None]:
    """Return the last decision that holds for a seed, its number and the seed it is bound to.

    A refusal is of every seed; an approval of its own, so that of another stands beside it.
    """
    for number, decision, bound in connection.execute(_DECISIONS, (fingerprint,)):
        if decision == "declined":
            return number, "declined", None
        if bound is None or seed is None or bound == str(seed):
            return number, "approved", bound
    return None, "waiting", None


def _seen(connection: sqlite3.Connection, row: tuple[str | None, ...]) -> KnownConfiguration:
    run, fingerprint, name, content, since, text = row
    seed = None if text is None else int(text)
    return KnownConfiguration(
        run=run,
        name=str(name),
        fingerprint=str(fingerprint),
        since=since or "",
        decision=_last_of(connection, str(fingerprint), seed)[1],
        seed=seed,
        config=_config(str(content), str(fingerprint)),
    )


def _config(content: str, fingerprint: str) -> RunConfig | None:
    """Return what a hash stands for; nobody is to approve one text and mean another."""
    try:
        config = read_config(content)
    except ConfigurationError:
        return None
    return config if config.fingerprint() == fingerprint else None


def _flat(value: object, place: str = "") -> dict[str, str]:
    """Return every value by its place, such as training.rounds; lists are one value."""
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= _flat(item, f"{place}.{key}" if place else str(key))
        return found
    return {place: json.dumps(value) if value is not None else "none"}
