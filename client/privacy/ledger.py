"""Privacy ledger of a site: charged first, released after.

Guarantee: whatever a private round releases was charged before, durably, and all charges
on any one patient together (client/privacy/composition.py) stay within the site's limit. A process
killed at any moment leaves a charge without a release at worst, never a release without a charge.

    repeated round         charged again: what was released the first time is out, and the run's
                           epsilon is told as it is then, above what its configuration states
    two runs at once       one transaction at a time, the second sees the first's charge
    a name charged before  for another configuration, seed or split key: RunBegun, by what its own
                           rows say, whatever else the site lost (repeated_answers.py)
    a row changed or cut   the chain of hashes breaks: LedgerDamaged, nothing is released
    a later release's row  LedgerTooNew names what this one does not know (stored_charge.py)
    an old copy restored   it lacks a charge that was told of: `knows`, which each request is
                           asked for (client/governance/records_check.py)
    the newest copy lost   `declare_lost` charges it back and numbers on behind it
    clock set back         no decision depends on time
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client.privacy.charge_text import BoundTo, Charge, named
from client.privacy.composition import COUNTED_APART, Part, binding, part_of, run_epsilon
from client.privacy.ledger_rows import SCHEMA, LedgerState, add_text, append, last_of, verified
from common.config.privacy import COMMON_DELTA
from common.platform.errors import BudgetExceeded, LedgerDamaged, PrivacyError, RunBegun
from common.platform.sqlite_file import connected, explained, transaction
from common.privacy.accounting import epsilon_of
from common.privacy.plan import LedgerHead, Mechanism, Spend

#: A site's name for its patients: all runs share one budget.
COHORT = "patients"
#: The run that what was declared lost is charged to.
_LOST_RUN = "declared lost"
_NOTHING = Mechanism(noise_multiplier=1.0, sampling_rate=1.0, steps=0, clip_norm=1.0, divisor=1.0)
#: How long a charge queues behind others.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The most that may be spent on a cohort by all runs together."""

    epsilon: float
    delta: float
    run: float = math.inf  # by one run, of any of its parts' patients, at the run's own delta

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
            connection.executescript(SCHEMA)
            add_text(connection)

    def charge(self, new: Charge, limit: Limit, delta: float) -> Spend:
        """Record a charge durably and return what is spent; nothing is recorded on refusal.

        The run's epsilon is at `delta`, the cohort's at the limit's. The ledger counts attempts.

        RunBegun when the run's name was charged for something else,
        BudgetExceeded when the cohort's composed epsilon would pass the limit,
        LedgerDamaged when the chain of hashes does not hold.
        """
        with self._writing() as connection:
            rows = verified(connection, self._path).charges
            past = [m for m in rows if m.cohort == new.cohort]
            name = part_of(new.run)[0]
            _check_begun(rows, name, new.bound)
            _check_run(past, new, limit, delta)
            after = epsilon_of(binding([*past, new]), limit.delta)
            if not after <= limit.epsilon:  # nan is refused too
                before = epsilon_of(binding(past), limit.delta)
                message = (
                    f"Run {new.run}, round {new.round} would bring cohort {new.cohort} to epsilon "
                    f"{after:.4g} (now {before:.4g}), over its limit of {limit.epsilon:.4g} at "
                    f"delta {limit.delta:.2g}: {max(limit.epsilon - before, 0):.4g} is left. "
                    "Nothing was charged or released."
                )
                raise BudgetExceeded(message)
            same = [m for m in past if (m.run, m.round) == (new.run, new.round)]
            head = append(connection, replace(new, attempt=len(same) + 1))
        whole = [*past, new]
        return Spend(
            mechanism=new.mechanism,
            run_epsilon=run_epsilon(whole, name, delta),
            run_delta=delta,
            run_common_epsilon=run_epsilon(whole, name, COMMON_DELTA),
            cohort_epsilon=after,
            cohort_delta=limit.delta,
            ledger=head,
            simulated_noise=False,
        )

    def check_begun(self, run: str, bound: BoundTo) -> None:
        """Raise RunBegun when a run's name was charged for something else."""
        with closing(self._connect()) as connection:
            _check_begun(verified(connection, self._path).charges, run, bound)

    def charges(
        self, cohort: str, *, without: tuple[str, BoundTo] | None = None
    ) -> tuple[Charge, ...]:
        """Return every charge to a cohort, oldest first, but for those of one run's parts."""
        return tuple(
            row
            for row in self.state().charges
            if row.cohort == cohort and (part_of(row.run)[0], row.bound) != without
        )

    def history(self, cohort: str) -> tuple[Mechanism, ...]:
        """Return every mechanism charged to a cohort, oldest first."""
        return tuple(row.mechanism for row in self.charges(cohort))

    def state(self) -> LedgerState:
        """Return the whole ledger, read and verified once, for several questions."""
        with closing(self._connect()) as connection:
            return verified(connection, self._path)

    def accounts(self) -> dict[str, dict[str, tuple[Mechanism, ...]]]:
        """Return every mechanism by cohort and by run, oldest first."""
        return self.state().accounts()

    def head(self) -> LedgerHead:
        """Return where the ledger stands; keep it elsewhere to notice a restored copy."""
        return self.state().head

    def knows(self, head: LedgerHead) -> bool:
        """Return whether the ledger once stood at `head`, or makes up for its loss."""
        return self.state().knows(head)

    def declare_lost(
        self, lost: Mapping[str, Iterable[Mechanism]], heads: Iterable[LedgerHead]
    ) -> LedgerHead:
        """Charge back what lost charges had spent, by cohort, whatever the limit; returns the head.

        Numbers go on behind the lost ones, so that whoever kept a lost head sees a ledger that
        has grown.
        """
        missing = tuple(heads)
        named_lost = tuple(sorted(map(named, missing)))
        up_to = max((head.charges for head in missing), default=0)
        parts = [(cohort, one) for cohort, spent in lost.items() for one in spent]
        with self._writing() as connection:
            rows = list(verified(connection, self._path).charges)
            for cohort, mechanism in parts or [(COHORT, _NOTHING)]:
                same = [r for r in rows if (r.cohort, r.run) == (cohort, _LOST_RUN)]
                charge = Charge(
                    cohort=cohort,
                    run=_LOST_RUN,
                    round=0,
                    attempt=len(same) + 1,
                    mechanism=mechanism,
                    lost_up_to=up_to,
                    lost=named_lost,
                )
                append(connection, charge)
                rows.append(charge)
            return last_of(connection)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock from the first read to the commit, so that charges queue up."""
        with closing(self._connect()) as connection, transaction(connection, self._explained):
            yield connection

    def _connect(self) -> sqlite3.Connection:
        with self._explained():
            connection = connected(self._path, patience_seconds=_PATIENCE_SECONDS, autocommit=True)
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                _switch_to_wal(connection)
        return connection

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self._explain)

    def _explain(self, error: sqlite3.DatabaseError) -> PrivacyError:
        """Turn SQLite's error into ours: a lock that somebody holds is no damage."""
        if isinstance(error, sqlite3.OperationalError):
            return PrivacyError(
                f"The ledger {self._path} cannot be used: {error}. Nothing was charged or "
                "released. See that its folder can be written and no other program holds it."
            )
        message = f"{self._path} is no ledger: {error}. Put the newest sound copy back."
        return LedgerDamaged(message)


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


def _check_begun(past: Iterable[Charge], run: str, bound: BoundTo | None) -> None:
    """Refuse a name that stands for something else; who is in which part follows from that."""
    for charge in past:
        if part_of(charge.run)[0] != run or charge.bound in {None, bound}:
            continue
        message = (
            f"Run {run} was charged for another configuration, seed or key of the split than it is "
            "asked for with now. Nothing was charged or released. The coordinator must begin a run "
            "of another name; where identity.key was lost, put it back from the backup."
        )
        raise RunBegun(message)


def _check_run(past: Sequence[Charge], new: Charge, limit: Limit, delta: float) -> None:
    """Refuse what a run would claim more with of any part's patients than it may.

    The claim is one of all that is charged, so no order of the same releases gets more than
    another. A round that is asked for again was planned once: it counts for the cohort alone.
    """
    name, part = part_of(new.run)
    everybody = part == "statistics" or new.bound is None
    if part == "train" and any((c.run, c.round) == (new.run, new.round) for c in past):
        return
    own = [*(c for c in past if part_of(c.run)[0] == name), new]
    for held in COUNTED_APART if everybody else (part,):
        claim = run_epsilon(_told_of(own, held), name, delta)
        if not claim <= limit.run:
            message = (
                f"Run {name} would claim epsilon {claim:.4g} at delta {delta:.2g} of its {held} "
                f"patients, over its own {limit.run:.4g}: it has too little noise. Nothing was "
                "charged or released."
            )
            raise BudgetExceeded(message)


def _told_of(own: Iterable[Charge], part: Part) -> list[Charge]:
    """Return what a run's charges tell of a part's patients, each round of training once."""

    def tells(charge: Charge) -> bool:
        kind = part_of(charge.run)[1]
        own_part = kind == part and (part != "train" or charge.attempt == 1)
        # Nobody knows whose those are that are bound to nothing.
        return charge.bound is None or kind == "statistics" or own_part

    return [charge for charge in own if tells(charge)]
