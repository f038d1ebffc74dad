"""Loss of a site's newest records: what is known of them is charged again, or asked again.

spending      charged back, never less
withdrawals   as many patients must have been withdrawn again
decisions     nothing is approved any more and the site is paused, until somebody says otherwise
disclosures   the log goes on without the lines that are lost; the coordinator's log has them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from client.governance import decisions_log
from client.governance.disclosures import listed
from client.governance.records_check import SiteRecords, Witness
from client.governance.records_kept import KnownRecords, digest_of, read_kept, sha256_of
from client.governance.records_statement import Statement, without
from client.privacy.composition import binding
from client.privacy.ledger import COHORT, Ledger
from client.site.home import Home
from client.site.withdrawals import stood_at, writing
from common.platform.errors import PrivacyError
from common.platform.hash_chain import GENESIS
from common.privacy.accounting import epsilon_of
from common.privacy.noise_calibration import calibrate
from common.privacy.plan import LedgerHead, Mechanism

#: What is charged for an epsilon that was told by word is above it by this part.
_ABOVE = 1e-6
Charged = Mapping[str, tuple[Mechanism, ...]]  # by cohort


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What came of a declared loss."""

    charged: Charged = field(default_factory=dict)
    withdrawals: bool = False  # whether they had been lost, too
    decisions: bool = False  # likewise: the site is paused now, and nothing is approved
    epsilon: float | None = None  # of all spending on the site's patients now


def declare_lost(records: SiteRecords, epsilon: float | None, delta: float) -> Declared:
    """Charge back what the witnesses know of and the ledger lacks, never less, for good.

    What they know by its hash alone is charged by `epsilon` (at `delta`), which somebody read
    from other records. PrivacyError says what is missing.
    """
    home = records.home
    kept = records.kept() or KnownRecords()
    ledger = Ledger(home.ledger)
    witnesses = list(records.witnesses(kept))
    missing = [w.ledger for w in witnesses if not ledger.knows(w.ledger)]
    charged = lost_spending(home, _newest_statement(home), ledger)
    withdrawals = _declare_withdrawals(home, witnesses)
    undone, settled = _declare_decisions(records, witnesses)
    # Somebody else's statement is a question of its own: it must not raise the price of this.
    unread = kept.open_questions() if not (missing or withdrawals or settled or undone) else ()
    missing += [r.ledger for r in unread if not ledger.knows(r.ledger)]
    if not charged and any(head.charges for head in missing):
        charged = _by_word(home, epsilon, delta, missing)
    if missing:
        ledger.declare_lost(charged, missing)
    answered = (
        *map(digest_of, unread),
        *(sha256_of(w.unread) for w in witnesses if w.unread),
        *settled,
    )
    records.change(
        lambda now: KnownRecords(statement=records.statement(), settled=(*now.settled, *answered))
    )
    spent = binding(ledger.charges(COHORT))
    return Declared(
        charged=charged,
        withdrawals=withdrawals,
        decisions=undone,
        epsilon=epsilon_of(spent, delta) if spent else None,
    )


def lost_spending(home: Home, statement: Statement | None, ledger: Ledger) -> Charged:
    """Return what a statement says was spent and the ledger does not.

    Where the ledger is not surely an earlier state of what was lost, all of it is charged.
    """
    if statement is None or ledger.knows(statement.ledger):
        return {}
    own, head = ledger.accounts(), ledger.head()
    marks = (line.disclosure.records for line in listed(home.disclosures))
    stood = {(mark.charges, mark.hash) for mark in marks if mark is not None}
    earlier = (head.charges, head.hash) in stood | {(0, GENESIS)}
    lost = {}
    for cohort, spent in statement.spent.items():
        known = (one for run in own.get(cohort, {}).values() for one in run)
        lost[cohort] = without(spent, known) if earlier else spent
    return lost


def _by_word(
    home: Home, epsilon: float | None, delta: float, missing: Sequence[LedgerHead]
) -> Charged:
    """Return what nobody but a person knows; never less than was told to have been spent."""
    told = [line.disclosure.epsilon or 0.0 for line in listed(home.disclosures)]
    least = max(told, default=0.0)
    if epsilon is None or not least <= epsilon < float("inf") or epsilon <= 0:
        message = (
            f"What {max(head.charges for head in missing)} lost charges spent is not known here. "
            f"Give what had been spent with --epsilon, at delta {delta:g}: at least {least:.4g}, "
            f"by {home.disclosures.name} and by what the coordinator's admin reads in the results "
            "of this site's runs."
        )
        raise PrivacyError(message)
    noise = calibrate(epsilon * (1 + _ABOVE), delta, 1.0, 1)
    one = Mechanism(noise_multiplier=noise, sampling_rate=1.0, steps=1, clip_norm=1.0, divisor=1.0)
    return {COHORT: (one,)}


def _declare_withdrawals(home: Home, witnesses: Sequence[Witness]) -> bool:
    missing = [
        w.withdrawals
        for w in witnesses
        if w.withdrawals is not None and not stood_at(home.withdrawals, w.withdrawals)
    ]
    if missing:
        with writing(home.withdrawals) as log:
            log.declare_lost(max(missing, key=lambda head: (head.lines, head.patients)))
    return bool(missing)


def _newest_statement(home: Home) -> Statement | None:
    """Return the last statement of all federations: their ledger is one, and so is its loss."""
    kept = (read_kept(one.records) for one in home.federations())
    known = (one.statement for one in kept if one is not None and one.statement is not None)
    return max(known, key=lambda statement: statement.ledger.charges, default=None)


def _declare_decisions(
    records: SiteRecords, witnesses: Sequence[Witness]
) -> tuple[bool, tuple[str, ...]]:
    """Return whether decisions had been lost, and the hashes that are answered for now."""
    home = records.home
    decided = [w.decided.hash for w in witnesses if w.decided and records.lacks_decisions(w)]
    disclosed = [w.disclosed for w in witnesses if records.lacks_disclosures(w)]
    undone = bool(decided) or decisions_log.fault_of(home) is not None
    if undone:
        decisions_log.declare_lost(home)
    return undone, (*decided, *disclosed)
