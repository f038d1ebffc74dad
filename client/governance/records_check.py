"""Check that a site's records are the newest: ledger, withdrawals, decisions, disclosures.

Guarantee: before each answer, the records are compared with where they stood by every witness
there is, and where one of them knows of more, nothing is trained, measured or described:
RecordsLost says which file, and what to do.

    witness                what it knows                        an old copy of it
    records.json           the last statement of this home      hides nothing that another knows
    disclosures.jsonl      ledger, withdrawals at each message  likewise
    the coordinator        a sealed statement, over all runs    is older than the site: no harm

    any of the four restored, cut, missing, another's         refused
    the whole home restored               refused with the coordinator's next request
    a charge whose answer never arrived   the site is ahead of the coordinator: no harm
    a statement that this home did not seal                   that request is refused, and no other
    identity.key lost, or another's       refused: it says who trains and who is tested
    the newest copy is truly lost         client/governance/records_loss.py charges back what is
    known of it

Not noticed: a whole home restored to before a charge or withdrawal that no coordinator was told
of yet (nothing of the charge has left), or while the coordinator keeps back what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from client.governance import decisions_log
from client.governance.decisions_log import DecisionsHead
from client.governance.disclosures import RecordsMark, had_line, last_hash, last_mark, listed
from client.governance.records_kept import KnownRecords, digest_of, read_kept, sha256_of, write_kept
from client.governance.records_statement import (
    Statement,
    joined,
    opened,
    opened_head,
    sealed,
    sealed_head,
)
from client.privacy.ledger import Ledger
from client.site.home import Home
from client.site.pseudonyms import pseudonyms
from client.site.withdrawals import WithdrawalsHead, head_of, stood_at
from common.messages.receipt import Receipt, read_receipt
from common.platform.errors import AnswerNotAdmitted, RecordsLost
from common.platform.file_lock import FileLock
from common.privacy.plan import LedgerHead

_REMEDY = "If it is truly lost: wardround-site records --declare-lost"


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Where records stood, and who says so."""

    who: str
    ledger: LedgerHead
    withdrawals: WithdrawalsHead | None  # None: it does not say
    #: What another identity.key than this home's sealed; empty where this one opens it.
    unread: str = ""
    decided: DecisionsHead | None = None  # None: it does not say
    disclosed: str = ""  # hash of a line; empty: it does not say


class SiteRecords:
    """The records of one home; each call reads them anew."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def check(self, receipt: str = "") -> None:
        """Raise RecordsLost unless the records are the newest that any witness knows of.

        `receipt` is what the coordinator sent with a request. The first check of a home that
        has spent nothing begins its records.
        """
        kept = self.kept()
        heard = self._heard(kept or KnownRecords(), receipt) if receipt else None
        witnesses = list(self.witnesses(kept))
        if heard is not None:
            witnesses.append(_witness("the coordinator", heard))
        fault = (
            self._other_key(witnesses, kept or KnownRecords())
            or self._fault(witnesses, begun=kept is not None)
            or self._undone(witnesses)
        )
        if fault is not None:
            if heard is not None and self._is_behind(heard):
                self._note_missing(heard)
            raise RecordsLost(fault)
        if kept is None:
            self.change(lambda now: replace(now, statement=now.statement or self.statement()))

    def statement(self) -> Statement:
        """Return where the records stand."""
        ledger = Ledger(self.home.ledger).state()
        spent = {
            cohort: joined(one for run in runs.values() for one in run)
            for cohort, runs in ledger.accounts().items()
        }
        return Statement(
            ledger=ledger.head,
            withdrawals=head_of(self.home.withdrawals),
            spent=spent,
            decided=decisions_log.head_of(self.home.decided),
            disclosed=last_hash(self.home.disclosures),
        )

    def attest(self) -> tuple[RecordsMark, str]:
        """Return where the records stand, for the line of a message and for its receiver.

        It is noted in records.json first. RecordsLost where they are not the newest.
        """
        self.check()
        decisions_log.note(self.home)
        statement, key = self.note(), self._key()
        mark = RecordsMark(
            charges=statement.ledger.charges,
            hash=statement.ledger.hash,
            withdrawals=sealed_head(statement.withdrawals, key),
        )
        return mark, Receipt(ledger=statement.ledger, sealed=sealed(statement, key)).text()

    @property
    def are_begun(self) -> bool:
        """Whether there are records that an old copy could be held against."""
        return self.home.records.exists()

    def is_asked(self) -> bool:
        """Return whether the coordinator's last statement was one that this home did not write."""
        kept = self.kept() or KnownRecords()
        return bool(kept.open_questions())

    def note_change(self) -> None:
        """Note in records.json what was withdrawn or decided, unless something older is missing."""
        decisions_log.note(self.home)
        try:
            self.check()
        except RecordsLost:
            return  # what is missing stays noted
        self.note()

    def note(self) -> Statement:
        """Note in records.json where the records stand, and return it."""
        statements: list[Statement] = []

        def changed(kept: KnownRecords) -> KnownRecords:
            statements.append(self.statement())  # here, where nobody notes a later one before us
            return replace(kept, statement=statements[-1])

        self.change(changed)
        return statements[-1]

    # --- witnesses -----------------------------------------------------------------------

    def witnesses(self, kept: KnownRecords | None) -> Iterator[Witness]:
        """Yield what this home knows of where its records stood."""
        if kept is not None and kept.statement is not None:
            yield _witness(self.home.records.name, kept.statement)
        mark = last_mark(self.home.disclosures)  # not the whole log, at each request
        if mark is not None:
            stood = opened_head(mark.withdrawals, self._key())
            yield Witness(
                who=self.home.disclosures.name,
                ledger=LedgerHead(charges=mark.charges, hash=mark.hash),
                withdrawals=stood,
                unread=mark.withdrawals if stood is None else "",
            )
        yield from self._of_others()

    def _of_others(self) -> Iterator[Witness]:
        """Yield what the home's other federations know of the ledger and withdrawals they share."""
        for other in self.home.federations():
            kept = None if other == self.home else read_kept(other.records)
            if kept is not None and kept.statement is not None:
                yield Witness(
                    who=str(other.records.relative_to(self.home.folder)),
                    ledger=kept.statement.ledger,
                    withdrawals=kept.statement.withdrawals,
                )

    def _heard(self, kept: KnownRecords, receipt: str) -> Statement | None:
        """Return the coordinator's statement; RecordsLost where this home cannot read it."""
        try:
            read = read_receipt(receipt)
        except AnswerNotAdmitted as error:
            raise RecordsLost(str(error)) from error
        statement = opened(read.sealed, self._key())
        if statement is not None and statement.ledger == read.ledger:
            return statement
        if digest_of(read) in kept.settled:
            return None
        self.change(lambda now: replace(now, unread=(read,)))
        message = (
            f"The coordinator keeps a statement of this site ({read.ledger.charges} charges) that "
            f"this home did not write. If the site had another home before, put its "
            f"{self._names()} and identity.key back from the backup, and stop using the other. "
            f"{_REMEDY}. If there never was one, ask the coordinator whose statement it is."
        )
        raise RecordsLost(message)

    def _other_key(self, witnesses: list[Witness], kept: KnownRecords) -> str | None:
        """Return what is wrong where identity.key is not the one of this home's last message.

        It splits the patients: under another one, who trained in a run would be tested in it.
        """
        if all(one.unread == "" or sha256_of(one.unread) in kept.settled for one in witnesses):
            return None
        return (
            f"{self.home.identity_key} is not the key that this home had when its last message "
            "left: with another one other patients train and test. Put it back from the backup. "
            f"{_REMEDY}, and let other runs be begun in place of those under way. Until then "
            "nothing is trained or told."
        )

    def _fault(self, witnesses: list[Witness], *, begun: bool) -> str | None:
        """Return what is wrong with the records, or None."""
        home = self.home
        if not home.ledger.exists():
            told = max((w.ledger.charges for w in witnesses), default=0)
            if begun or told or self._charged_before():
                return (
                    f"{home.ledger} is missing, and this home has had one with {told} charges or "
                    f"more. {self._put_back(self._names())}"
                )
        ledger = Ledger(home.ledger).state()
        head = ledger.head
        if not begun and head.charges < self._charged_before():
            return self._old(
                home.ledger,
                f"{head.charges} charges",
                home.disclosures.name,
                f"{self._charged_before()} or more",
            )
        for one in witnesses:
            if not ledger.knows(one.ledger):
                return self._old(
                    home.ledger,
                    f"{head.charges} charges",
                    one.who,
                    f"{one.ledger.charges}, with another hash",
                )
            if one.withdrawals is not None and not stood_at(home.withdrawals, one.withdrawals):
                return self._old(
                    home.withdrawals,
                    f"{head_of(home.withdrawals).patients} patients",
                    one.who,
                    f"{one.withdrawals.patients}, with another hash",
                )
        return None

    def _undone(self, witnesses: list[Witness]) -> str | None:
        """Return which decisions or disclosures are older than a witness knows, or None."""
        home = self.home
        for one in witnesses:
            if self.lacks_decisions(one):
                known = 0 if one.decided is None else one.decided.lines
                found = decisions_log.head_of(home.decided).lines
                names = f"{home.decided.name} and {home.approvals.name}"
                told = f"{known}, other ones"
                return self._old(home.decided, f"{found} lines", one.who, told, names)
            if self.lacks_disclosures(one):
                return self._old(
                    home.disclosures,
                    "other lines",
                    one.who,
                    f"one with hash {one.disclosed[:16]}...",
                    home.disclosures.name,
                )
        fault = decisions_log.fault_of(home)
        if fault is None:
            return None
        names = f"{home.decided.name} and {home.approvals.name}"
        return f"{fault}. {self._put_back(names)}"

    def lacks_decisions(self, witness: Witness) -> bool:
        """Return whether a witness knows of decisions that are not here."""
        told = witness.decided
        settled = (self.kept() or KnownRecords()).settled
        return (
            told is not None
            and not decisions_log.stood_at(self.home.decided, told)
            and told.hash not in settled
        )

    def lacks_disclosures(self, witness: Witness) -> bool:
        """Return whether a witness knows of a message whose line is not here."""
        told = witness.disclosed
        settled = (self.kept() or KnownRecords()).settled
        return bool(told) and not had_line(self.home.disclosures, told) and told not in settled

    def _old(self, path: Path, found: str, who: str, told: str, names: str = "") -> str:
        return (
            f"{path} has {found}; {who} knows of {told}: an old copy, or another's, was put there. "
            f"{self._put_back(names or self._names())}"
        )

    def _put_back(self, names: str) -> str:
        return (
            f"Put the newest copy of {names} back from the backup while the daemon is stopped. "
            f"{_REMEDY}. Until then nothing is trained or told{self._there(names)}."
        )

    def _there(self, names: str) -> str:
        """Return to whom nothing is told, where that is one of several federations.

        Ledger and withdrawals are all federations'; decisions and disclosures are each one's.
        """
        one_of_several = len(self.home.federations()) > 1 and names != self._names()
        return f" in federation {self.home.federation}" if one_of_several else ""

    def _names(self) -> str:
        return f"{self.home.ledger.name} and {self.home.withdrawals.name}"

    def _charged_before(self) -> int:
        """Return how many charges the messages of 0.1.0 speak of, which says no more of them."""
        return len(
            {
                line.disclosure.sha256
                for line in listed(self.home.disclosures)
                if line.disclosure.epsilon is not None and line.disclosure.records is None
            }
        )

    def _is_behind(self, heard: Statement) -> bool:
        if not self.home.ledger.exists():
            return True
        known = Ledger(self.home.ledger).knows(heard.ledger)
        told = _witness("", heard)
        return not (
            known
            and stood_at(self.home.withdrawals, heard.withdrawals)
            and not self.lacks_decisions(told)
            and not self.lacks_disclosures(told)
        )

    def _note_missing(self, heard: Statement) -> None:
        """Keep what the coordinator gave back: it is wanted also when it is not sent again."""

        def changed(kept: KnownRecords) -> KnownRecords:
            before = kept.statement
            is_newer = before is None or heard.ledger.charges >= before.ledger.charges
            return replace(kept, statement=heard) if is_newer else kept

        self.change(changed)

    def kept(self) -> KnownRecords | None:
        """Return what records.json holds, None where there is none."""
        return read_kept(self.home.records)

    def change(self, change: Callable[[KnownRecords], KnownRecords]) -> None:
        """Write records.json anew; of two processes neither undoes what the other noted."""
        with FileLock(self.home.records.with_suffix(".lock"), waits=True):
            write_kept(self.home.records, change(self.kept() or KnownRecords()))

    def _key(self) -> bytes:
        return pseudonyms(self.home.identity_key).key


def _witness(who: str, statement: Statement) -> Witness:
    return Witness(
        who=who,
        ledger=statement.ledger,
        withdrawals=statement.withdrawals,
        decided=statement.decided,
        disclosed=statement.disclosed,
    )
