"""A site's record of privacy spent: charged first, released after, never forgotten.

Guarantee: whatever a private round releases was charged before, durably, and all charges
on any one patient together (client/parts.py) stay within the site's limit. A process killed
at any moment leaves a charge without a release at worst, never a release without a charge.

    repeated round         charged again: what was released the first time is out
    two runs at once       one transaction at a time, the second sees the first's charge
    a row changed or cut   the chain of hashes breaks: LedgerDamaged, nothing is released
    a later release's row  LedgerTooNew names what this one does not know (client/charge.py)
    an old copy restored   `head` has fewer charges than the coordinator was told of, or
                           lacks the charge it was told of: admission, `check_head`
    clock set back         no decision depends on time
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client.charge import Charge, chained, charge_of, text_of_columns
from client.parts import binding, part_of, run_epsilon
from common.config_privacy import COMMON_DELTA
from common.errors import BudgetExceeded, LedgerDamaged, LedgerTooNew, PrivacyError
from common.privacy.accounting import epsilon_of
from common.privacy.plan import LedgerHead, Mechanism, Spend

_GENESIS = "0" * 64
#: How long a charge queues behind others.
_PATIENCE_SECONDS = 60.0
_SCHEMA = """
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


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The most that may be spent on a cohort by all runs together."""

    epsilon: float
    delta: float
    run: float = math.inf  # of the counts that a run is told, at the run's own delta

    def __post_init__(self) -> None:
        """Refuse a limit that bounds nothing, such as nan, which no sum is ever above."""
        if not (self.epsilon > 0 and 0 < self.delta < 1):
            message = (
                f"A ledger's limit has epsilon={self.epsilon} and delta={self.delta}, expected "
                "epsilon above 0 and delta between 0 and 1."
            )
            raise PrivacyError(message)


class Ledger:
    """An SQLite file of charges; every method opens, checks and closes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, self._explained():
            connection.executescript(_SCHEMA)
            _add_text(connection)

    def charge(
        self, cohort: str, run: str, round_number: int, mechanism: Mechanism, limit: Limit,
        delta: float,
    ) -> Spend:  # fmt: skip
        """Record a charge durably and return what is spent; nothing is recorded on refusal.

        The run's epsilon is at `delta`, the cohort's at the limit's.

        BudgetExceeded when the cohort's composed epsilon would pass the limit,
        LedgerDamaged when the chain of hashes does not hold.
        """
        with self._writing() as connection:
            rows = _verified(connection, self._path)
            past = [m for m in rows if m.cohort == cohort]
            new = Charge(cohort=cohort, run=run, round=round_number, attempt=1, mechanism=mechanism)
            _check_run(past, new, limit, delta)
            after = epsilon_of(binding([*past, new]), limit.delta)
            if not after <= limit.epsilon:  # nan is refused too
                before = epsilon_of(binding(past), limit.delta)
                message = (
                    f"Run {run}, round {round_number} would bring cohort {cohort} to epsilon "
                    f"{after:.4g} (now {before:.4g}), over its limit of {limit.epsilon:.4g} at "
                    f"delta {limit.delta:.2g}: {max(limit.epsilon - before, 0):.4g} is left. "
                    "Nothing was charged or released."
                )
                raise BudgetExceeded(message)
            same = [m for m in past if m.run == run and m.round == round_number]
            head = _append(connection, rows, replace(new, attempt=len(same) + 1))
        whole, name = [*past, new], part_of(run)[0]
        return Spend(
            mechanism=mechanism, run_epsilon=run_epsilon(whole, name, delta),
            run_delta=delta, run_common_epsilon=run_epsilon(whole, name, COMMON_DELTA),
            cohort_epsilon=after, cohort_delta=limit.delta, ledger=head,
            simulated_noise=False,
        )  # fmt: skip

    def charges(self, cohort: str, *, without_run: str | None = None) -> tuple[Charge, ...]:
        """Return every charge to a cohort, oldest first, but for those of one run's parts."""
        with closing(self._connect()) as connection:
            rows = _verified(connection, self._path)
        return tuple(
            row for row in rows if row.cohort == cohort and part_of(row.run)[0] != without_run
        )

    def history(self, cohort: str, *, without_run: str | None = None) -> tuple[Mechanism, ...]:
        """Return every mechanism charged to a cohort, oldest first, but for those of one run."""
        return tuple(row.mechanism for row in self.charges(cohort, without_run=without_run))

    def accounts(self) -> dict[str, dict[str, tuple[Mechanism, ...]]]:
        """Return every mechanism by cohort and by run, oldest first."""
        with closing(self._connect()) as connection:
            rows = _verified(connection, self._path)
        found: dict[str, dict[str, tuple[Mechanism, ...]]] = {}
        for row in rows:
            runs = found.setdefault(row.cohort, {})
            runs[row.run] = (*runs.get(row.run, ()), row.mechanism)
        return found

    def head(self) -> LedgerHead:
        """Return where the ledger stands; keep it elsewhere to notice a restored copy."""
        with closing(self._connect()) as connection:
            rows = _verified(connection, self._path)
            last = _hash_of_last(connection) if rows else _GENESIS
            return LedgerHead(charges=len(rows), hash=last)

    def check_head(self, expected: LedgerHead) -> None:
        """Raise LedgerDamaged unless the ledger once stood at `expected`."""
        with closing(self._connect()) as connection:
            _verified(connection, self._path)
            at_number = "SELECT hash FROM charges WHERE number = ?"
            known = connection.execute(at_number, (expected.charges,)).fetchone()
            found = str(known[0]) if known else _GENESIS if expected.charges == 0 else None
            if found != expected.hash:
                message = (
                    f"{self._path} lacks a charge that was made (number {expected.charges}, hash "
                    f"{expected.hash[:12]}...): an old copy was restored. Put the newest copy back "
                    "before anything is released."
                )
                raise LedgerDamaged(message)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock from the first read to the commit, so that charges queue up."""
        with closing(self._connect()) as connection:
            with self._explained():
                connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            with self._explained():
                connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        with self._explained():
            connection = sqlite3.connect(
                self._path, isolation_level=None, timeout=_PATIENCE_SECONDS
            )
            connection.execute("PRAGMA synchronous = FULL")
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                _switch_to_wal(connection)
        return connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours: a lock that somebody holds is no damage."""
        try:
            yield
        except sqlite3.OperationalError as error:
            message = (
                f"The ledger {self._path} cannot be used: {error}. Nothing was charged or "
                "released. See that its folder can be written and no other program holds it."
            )
            raise PrivacyError(message) from error
        except sqlite3.DatabaseError as error:
            message = f"{self._path} is no ledger: {error}. Put the newest sound copy back."
            raise LedgerDamaged(message) from error


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to a write-ahead log; SQLite does not queue for this lock by itself."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _add_text(connection: sqlite3.Connection) -> None:
    """Give a ledger of release 0.1.0 the column for texts; its charges stay as they are."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        columns = connection.execute("SELECT name FROM pragma_table_info('charges')").fetchall()
        if ("text",) not in columns:
            connection.execute("ALTER TABLE charges ADD COLUMN text TEXT")
    finally:
        connection.execute("COMMIT")


def _check_run(past: Sequence[Charge], new: Charge, limit: Limit, delta: float) -> None:
    """Refuse counts with which a run would claim more of a part's patients than it may."""
    name, part = part_of(new.run)
    if part == "train":
        return  # planned as a whole; a round that is repeated is charged again
    own = [c for c in past if part_of(c.run) in {(name, part), (name, "statistics")}]
    claim = run_epsilon([*own, new], name, delta)
    if claim <= limit.run:
        return
    message = (
        f"Run {name} would claim epsilon {claim:.4g} at delta {delta:.2g} of its {part} patients, "
        f"over its own {limit.run:.4g}: its counts have too little noise. Nothing was charged or "
        "released."
    )
    raise BudgetExceeded(message)


def _append(connection: sqlite3.Connection, rows: list[Charge], charge: Charge) -> LedgerHead:
    previous = _hash_of_last(connection) if rows else _GENESIS
    text = charge.text()
    head = LedgerHead(charges=len(rows) + 1, hash=chained(previous, text))
    connection.execute(
        "INSERT INTO charges (number, cohort, run, round, attempt, mechanism, previous, hash, "
        "text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (head.charges, *charge.columns(), previous, head.hash, text),
    )
    return head


def _hash_of_last(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT hash FROM charges ORDER BY number DESC LIMIT 1").fetchone()
    return str(row[0])


def _verified(connection: sqlite3.Connection, path: Path) -> list[Charge]:
    """Return all charges after checking the whole chain."""
    charges: list[Charge] = []
    previous = _GENESIS
    try:
        rows = connection.execute(
            "SELECT number, previous, hash, text, cohort, run, round, attempt, mechanism "
            "FROM charges ORDER BY number"
        ).fetchall()
        for place, row in enumerate(rows, 1):
            number, before, found, text, *columns = row
            if text is None:
                text = text_of_columns(*columns)
            if number != place or before != previous or found != chained(previous, text):
                raise _damage(path, place)
            charge = charge_of(text)
            if columns[:4] != list(charge.columns()[:4]) or columns[4] not in text:
                raise _damage(path, place)
            charges.append(charge)
            previous = found
    except LedgerTooNew as error:
        raise _too_new(path, len(charges) + 1, str(error)) from error
    except LedgerDamaged:
        raise
    except (sqlite3.DatabaseError, ValueError, TypeError, PrivacyError) as error:
        raise _damage(path, len(charges) + 1) from error
    return charges


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
