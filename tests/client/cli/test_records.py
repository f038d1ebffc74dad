"""Old copies of a site's records, put back between two runs, through the daemon's letters."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.app import app
from client.governance.approvals import Approvals
from client.governance.disclosures import Disclosure, Disclosures, listed
from client.governance.records_check import SiteRecords
from client.governance.records_kept import KnownRecords
from client.governance.records_loss import declare_lost
from client.governance.records_statement import Statement, sealed
from client.privacy.ledger import COHORT, Ledger, Limit
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from client.site.withdrawals import WithdrawalsHead, withdrawn, writing
from common.messages.receipt import Receipt, read_receipt
from common.messages.signed_envelope import unseal
from common.messages.wire import Proposal, Refusal, RefusalReason, SiteUpdate, Standing
from common.platform.errors import PrivacyError, RecordsLost
from common.privacy.accounting import epsilon_of
from common.privacy.plan import LedgerHead
from server.enrolment.receipts import ReceiptStore
from tests.client.answering import CONFIG, Letters, question
from tests.client.letters import FolderFleet
from tests.privacy.made_up import charged, mechanism_of

DELTA = 1e-5
KEY = "a key"


@dataclass
class Federation:
    """One site's home and the coordinator that keeps its receipts over runs."""

    place: Path

    def __post_init__(self) -> None:
        self.fleet = FolderFleet(self.place / "fleet")
        self.home = Home(self.place / "home")
        self.receipts = ReceiptStore(self.place / "receipts.db")
        self.letters = Letters(self.home.folder, private_only=False)
        self.asked = 0

    def answer(self, *, run: str = "run", number: int = 1, receipt: str | None = None) -> object:
        """Ask one question and return the answer; what it gave to keep is kept."""
        self.asked += 1
        known = self.receipts.of("here", KEY) if receipt is None else receipt
        request = (
            question(number, run) if number else Proposal(run=run, round=0, seed=0, config=CONFIG)
        )
        before = set(self.fleet.answers_by_name())
        self.fleet.ask(request, number=self.asked, receipt=known)
        letters = self.letters.open()  # each time another process
        while letters.turn(self.fleet, 0.1) or letters.open:
            pass
        (name,) = set(self.fleet.answers_by_name()) - before
        envelope, given = self.fleet.answers_by_name()[name]
        self.receipts.keep("here", KEY, given)
        return unseal(envelope.header, envelope.frames)

    def train(self, rounds: int, run: str = "run", first: int = 1) -> None:
        for number in range(first, first + rounds):
            assert isinstance(self.answer(run=run, number=number), SiteUpdate)

    def epsilon(self) -> float:
        return epsilon_of(Ledger(self.home.ledger).history(COHORT), DELTA)

    def detail(self) -> str:
        """Return what the site's log said last."""
        return str(self.letters.told[-1][1]["detail"])

    def copy(self, name: str) -> Path:
        """Make a backup of the home."""
        with closing(sqlite3.connect(self.home.ledger)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(shutil.copytree(self.home.folder, self.place / name))

    def put_back(self, copy: Path, *names: str) -> None:
        """Put files of a backup in place of what is there; no name: the whole home."""
        if not names:
            shutil.rmtree(self.home.folder)
            shutil.copytree(copy, self.home.folder)
            return
        for name in names:
            for left in self.home.folder.glob(f"{name}*"):
                left.unlink()
            if (copy / name).exists():
                shutil.copy(copy / name, self.home.folder / name)

    def withdraw(self, patient: str) -> None:
        with writing(self.home.withdrawals) as log:
            log.withdraw(patient)
            log.forgotten(patient)

    def command(self, *words: str) -> tuple[int, str]:
        write_site_config(self.home.site_yaml, SiteConfig(name="here", data=self.home.folder))
        done = CliRunner().invoke(app, ["records", *words, "--home", str(self.home.folder)])
        return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def restored(it: Federation, copy: Path) -> None:
    it.put_back(copy, "ledger.db")


def cut(it: Federation, _copy: Path) -> None:
    with closing(sqlite3.connect(it.home.ledger)) as connection:
        connection.execute("DROP TRIGGER no_delete")
        connection.execute("DELETE FROM charges WHERE number > 1")
        connection.commit()


def missing(it: Federation, _copy: Path) -> None:
    for left in it.home.folder.glob("ledger.db*"):
        left.unlink()


def swapped(it: Federation, copy: Path) -> None:
    missing(it, copy)
    other = Ledger(it.home.ledger)
    for number in range(9):
        charged(
            other,
            COHORT,
            "theirs",
            number,
            mechanism_of(20.0),
            Limit(epsilon=99, delta=DELTA),
            DELTA,
        )


def whole_home(it: Federation, copy: Path) -> None:
    it.put_back(copy)


Attack = Callable[[Federation, Path], None]
ATTACKS = (restored, cut, missing, swapped, whole_home)


#: A whole home that is old holds no newer record of its own.
WITNESSED = [
    (attack, witnesses)
    for attack in ATTACKS
    for witnesses in ("all", "home", "disclosures", "coordinator")
    if attack is not whole_home or witnesses in {"all", "coordinator"}
]


@pytest.mark.parametrize(("attack", "witnesses"), WITNESSED)
def test_an_old_ledger_is_refused_by_the_next_run_and_the_newest_copy_mends_it(
    federation: Federation, attack: Attack, witnesses: str
) -> None:
    federation.train(1)
    copy = federation.copy("backup")
    federation.train(2, first=2)
    newest, spent = federation.copy("newest"), federation.epsilon()
    attack(federation, copy)
    if witnesses in {"disclosures", "coordinator"}:
        federation.home.records.unlink()
    if witnesses == "coordinator" and attack is not whole_home:
        federation.home.disclosures.unlink()
    receipt = "" if witnesses in {"home", "disclosures"} else None
    for number in (0, 1):  # neither a proposal nor a request that spends
        answer = federation.answer(run="next", number=number, receipt=receipt)
        assert isinstance(answer, Refusal)
        assert answer.reason is RefusalReason.RECORDS
        assert "ledger.db" in federation.detail()
        assert "Put the newest copy of ledger.db and withdrawals.jsonl back" in federation.detail()
        assert "wardround-site records --declare-lost" in federation.detail()
    assert not federation.home.ledger.exists() or federation.epsilon() != spent
    federation.put_back(newest, "ledger.db")
    if witnesses == "coordinator" or attack is whole_home:
        assert isinstance(federation.answer(run="next", number=0), Refusal)
        assert "disclosures.jsonl" in federation.detail()
        federation.put_back(newest, "disclosures.jsonl")
    assert isinstance(federation.answer(run="next", number=0), Standing)
    federation.train(1, "next")
    assert federation.epsilon() > spent


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_lost_ledger_is_charged_back_never_less_and_the_runs_go_on(
    federation: Federation, attack: Attack
) -> None:
    federation.train(1)
    copy = federation.copy("backup")
    federation.train(2, first=2)
    spent, own = federation.epsilon(), attack in {restored, cut, missing}
    attack(federation, copy)
    assert isinstance(federation.answer(run="next", number=0), Refusal)
    status, said = federation.command()
    assert status == 4
    assert "records --declare-lost" in said
    status, said = federation.command("--declare-lost", "--yes")
    assert status == 0, said
    assert "Charged back to patients" in said
    after = federation.epsilon()
    # What is surely an earlier state of the lost ledger is not charged twice.
    assert after == pytest.approx(spent) if own else after >= spent
    assert federation.command("--declare-lost", "--yes")[1].startswith("Nothing is lost")
    assert isinstance(federation.answer(run="next", number=0), Standing)
    federation.train(2, "next")
    assert federation.epsilon() > after
    # Whoever kept the lost head, or one of before, sees a ledger that has grown.
    assert read_receipt(federation.receipts.of("here", KEY)).ledger.charges > 3


def test_what_one_federation_lacks_is_said_to_be_its_own(federation: Federation) -> None:
    """Ledger and withdrawals are all federations'; each has disclosures of its own."""
    federation.home.of("lung").own.mkdir(parents=True)
    federation.train(1)
    copy = federation.copy("backup")
    federation.train(2, first=2)
    newest = federation.copy("newest")
    disclosures = federation.home.disclosures.name
    federation.home.disclosures.write_bytes((copy / disclosures).read_bytes())
    said = federation.command()[1]
    assert "nothing is trained or told in federation first." in said
    federation.put_back(newest)
    federation.home.ledger.write_bytes((copy / federation.home.ledger.name).read_bytes())
    assert "nothing is trained or told." in federation.command()[1]


def test_a_receipt_from_before_a_declared_loss_is_no_news(federation: Federation) -> None:
    federation.train(1)
    copy = federation.copy("backup")
    federation.train(1, first=2)
    older = federation.receipts.of("here", KEY)
    federation.train(1, first=3)
    federation.put_back(copy)
    assert isinstance(federation.answer(run="next", number=0), Refusal)
    assert federation.command("--declare-lost", "--yes")[0] == 0
    assert isinstance(federation.answer(run="next", number=0, receipt=older), Standing)


def test_a_copied_home_beside_its_original_is_noticed_once_both_were_charged(
    federation: Federation,
) -> None:
    federation.train(1)
    copy = federation.copy("copy")
    federation.train(1, first=2)
    federation.put_back(copy)  # the copy's own daemon, which the coordinator takes for the site
    assert isinstance(federation.answer(run="next", number=1), Refusal)
    assert isinstance(federation.answer(run="next", number=1, receipt=""), Refusal)


def test_a_coordinator_from_a_backup_and_a_site_that_is_ahead_are_no_harm(
    federation: Federation,
) -> None:
    federation.train(1)
    older = federation.receipts.of("here", KEY)
    federation.train(2, first=2)
    assert isinstance(federation.answer(run="next", number=1, receipt=older), SiteUpdate)
    # A charge whose answer never arrived: the worker died between charge and answer.
    ledger = Ledger(federation.home.ledger)
    last = ledger.charges(COHORT)[-1]
    ledger.charge(replace(last, round=2, attempt=1), Limit(epsilon=99, delta=DELTA), DELTA)
    assert isinstance(federation.answer(run="next", number=2), SiteUpdate)
    assert isinstance(federation.answer(run="next", number=3, receipt=""), SiteUpdate)


def test_a_lying_coordinator_is_refused_that_request_and_stops_nothing_else(
    federation: Federation,
) -> None:
    federation.train(2)
    genuine = federation.receipts.of("here", KEY)
    read, spent = read_receipt(genuine), federation.epsilon()
    more = LedgerHead(charges=99, hash="f" * 64)
    lies = (
        replace(read, ledger=more).text(),
        Receipt(ledger=more, sealed="AAAA").text(),
        Receipt(ledger=LedgerHead(charges=0, hash="0" * 64), sealed="").text(),
        "nonsense",
        "[]",
        '{"charges": "many"}',
        "9" * (1 << 19),
    )
    for number, lie in enumerate(lies):
        answer = federation.answer(run=f"lie-{number}", number=1, receipt=lie)
        assert isinstance(answer, Refusal)
        assert answer.reason is RefusalReason.RECORDS
        assert federation.epsilon() == spent  # neither lowered nor raised
        assert isinstance(federation.answer(run=f"lie-{number}", number=0), Standing)


def test_a_lie_does_not_raise_the_price_of_a_real_loss(federation: Federation) -> None:
    federation.train(2)
    spent = federation.epsilon()
    missing(federation, Path())
    lie = Receipt(ledger=LedgerHead(charges=99, hash="f" * 64), sealed="AAAA").text()
    assert isinstance(federation.answer(run="next", number=0, receipt=lie), Refusal)
    assert federation.command("--declare-lost", "--yes")[0] == 0
    assert federation.epsilon() == pytest.approx(spent)
    assert isinstance(federation.answer(run="next", number=0), Standing)


def test_a_new_home_under_an_old_name_is_asked_for_its_past(federation: Federation) -> None:
    federation.train(2)
    spent = federation.epsilon()
    newest = federation.copy("newest")
    shutil.rmtree(federation.home.folder)  # a new key, a new identity.key, nothing spent
    answer = federation.answer(run="next", number=0)
    assert isinstance(answer, Refusal)
    assert "this home did not write" in federation.detail()
    status, said = federation.command("--declare-lost", "--yes")
    assert status == 4
    assert "--epsilon" in said
    assert federation.command("--declare-lost", "--yes", "--epsilon", f"{spent}")[0] == 0
    assert federation.epsilon() >= spent
    assert isinstance(federation.answer(run="next", number=0), Standing)
    # Or the records of the earlier home are put in place.
    shutil.rmtree(federation.home.folder)
    federation.receipts.keep("here", KEY, federation.receipts.of("here", KEY))
    shutil.copytree(newest, federation.home.folder)


def test_an_epsilon_by_word_is_never_below_what_the_disclosures_tell(
    federation: Federation,
) -> None:
    federation.train(2)
    missing(federation, Path())
    federation.home.records.unlink()
    assert isinstance(federation.answer(run="next", number=0, receipt=""), Refusal)
    for epsilon in (None, 0.001, float("nan"), float("inf"), -1.0):
        with pytest.raises(PrivacyError, match="at least"):
            declare_lost(SiteRecords(federation.home), epsilon, DELTA)
    assert not Ledger(federation.home.ledger).head().charges


@pytest.mark.parametrize("how", ["gone", "another"])
def test_another_key_for_identifiers_is_refused_until_it_is_put_back_or_declared(
    federation: Federation, how: str
) -> None:
    """It splits the patients; the coordinator holds its receipt back, which would show it, too."""
    federation.train(1)
    key, name = federation.home.identity_key, federation.home.identity_key.name
    copy = federation.copy("backup")
    key.unlink()
    if how == "another":
        key.write_bytes(bytes(range(32)))
        key.chmod(0o600)
    answer = federation.answer(number=2, receipt="")
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.RECORDS
    assert "identity.key" in federation.detail()
    assert "Put it back" in federation.detail()
    federation.put_back(copy, name)
    assert isinstance(federation.answer(number=2, receipt=""), SiteUpdate)
    key.unlink()
    assert federation.command("--declare-lost", "--yes")[0] == 0
    assert isinstance(federation.answer(run="next", receipt=""), SiteUpdate)
    assert Ledger(federation.home.ledger).head().charges == 3


# --- withdrawals -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["list alone", "list and records.json", "whole home", "missing"])
def test_a_home_from_before_a_withdrawal_is_refused_also_without_privacy(
    federation: Federation, how: str
) -> None:
    federation.withdraw("P-1")
    assert isinstance(federation.answer(number=0), Standing)
    copy = federation.copy("backup")
    federation.withdraw("P-2")
    assert isinstance(federation.answer(number=0), Standing)
    newest = federation.copy("newest")
    match how:
        case "list alone":
            federation.put_back(copy, "withdrawals.jsonl")
        case "list and records.json":
            federation.put_back(copy, "withdrawals.jsonl", "records.json")
        case "whole home":
            federation.put_back(copy)
        case "missing":
            federation.home.withdrawals.unlink()
    answer = federation.answer(run="next", number=0)
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.RECORDS
    assert "withdrawals.jsonl" in federation.detail()
    assert "2, with another hash" in federation.detail()
    if how == "list alone":
        federation.put_back(newest, "withdrawals.jsonl")
        assert isinstance(federation.answer(run="next", number=0), Standing)
        return
    # The newest list is lost: nothing goes on before as many patients are withdrawn again.
    status, said = federation.command("--declare-lost", "--yes")
    assert status == 5
    assert "Withdraw the others again first" in said
    assert isinstance(federation.answer(run="next", number=0), Refusal)
    for patient in ("P-1", "P-2"):
        federation.withdraw(patient)
    status, said = federation.command("--declare-lost", "--yes")
    assert status == 0, said
    assert withdrawn(federation.home) == {"P-1", "P-2"}
    assert isinstance(federation.answer(run="next", number=0), Standing)
    federation.withdraw("P-3")
    assert isinstance(federation.answer(run="next", number=0), Standing)


def test_a_withdrawal_is_noted_at_once_and_its_old_list_shows_without_any_answer(
    federation: Federation,
) -> None:
    assert isinstance(federation.answer(number=0), Standing)
    federation.withdraw("P-1")
    SiteRecords(federation.home).note_change()
    federation.home.withdrawals.unlink()
    with pytest.raises(RecordsLost, match=r"withdrawals\.jsonl has 0 patients"):
        SiteRecords(federation.home).check()
    # Noting another one hides nothing.
    federation.withdraw("P-9")
    SiteRecords(federation.home).note_change()
    with pytest.raises(RecordsLost):
        SiteRecords(federation.home).check()


def test_what_leaves_of_withdrawals_is_the_same_for_none_and_for_many(
    federation: Federation,
) -> None:
    federation.answer(number=0)
    before = read_receipt(federation.receipts.of("here", KEY))
    for number in range(20):
        federation.withdraw(f"P-{number}")
    federation.answer(number=0)
    after = read_receipt(federation.receipts.of("here", KEY))
    assert after.ledger == before.ledger
    assert len(after.sealed) == len(before.sealed)
    marks = [line.disclosure.records for line in listed(federation.home.disclosures)]
    assert len({len(mark.withdrawals) for mark in marks if mark is not None}) == 1
    assert "P-1" not in federation.home.disclosures.read_text()
    federation.answer(number=0)  # nothing changed, and that does not show either
    assert read_receipt(federation.receipts.of("here", KEY)).sealed != after.sealed


# --- the first release -----------------------------------------------------------------------


def test_a_sealed_statement_is_as_long_for_none_as_for_many_whatever_was_spent() -> None:
    ledger = LedgerHead(charges=3, hash="a" * 64)
    for length in range(1, 4200):
        lengths = {
            len(
                sealed(
                    Statement(
                        ledger=ledger,
                        spent={"p" * length: ()},
                        withdrawals=WithdrawalsHead(
                            lines=2 * patients, hash="b" * 64, patients=patients
                        ),
                    ),
                    bytes(32),
                )
            )
            for patients in (0, 1_000_000)
        }
        assert len(lengths) == 1, length


def test_a_home_of_the_first_release_goes_on_and_its_missing_ledger_is_refused(
    federation: Federation,
) -> None:
    federation.train(2)
    text = federation.home.disclosures
    federation.home.records.unlink()
    text.unlink()
    log = Disclosures(text)
    for number in (1, 2):
        log.record(
            Disclosure(
                kind="update",
                to="c",
                run="r",
                round=number,
                bytes=1,
                sha256=f"{number:064x}",
                epsilon=0.1 * number,
            )
        )
    assert isinstance(federation.answer(run="next", number=0, receipt=""), Standing)
    federation.home.records.unlink()
    text.write_bytes(b"".join(text.read_bytes().splitlines(keepends=True)[:2]))
    missing(federation, Path())
    assert isinstance(federation.answer(run="next", number=0, receipt=""), Refusal)
    assert "ledger.db is missing" in federation.detail()


def test_two_processes_that_note_at_once_undo_nothing_of_each_other(federation: Federation) -> None:
    federation.train(1)
    records, begun = SiteRecords(federation.home), threading.Event()

    def other() -> None:
        begun.set()
        records.change(lambda kept: replace(kept, settled=(*kept.settled, "other")))

    thread = threading.Thread(target=other)

    def slow(kept: KnownRecords) -> KnownRecords:
        thread.start()
        assert begun.wait(30)
        return replace(kept, settled=(*kept.settled, "slow"))

    records.change(slow)
    thread.join()
    kept = records.kept()
    assert kept is not None
    assert kept.settled == ("slow", "other")
    assert kept.statement is not None


def test_a_ledger_whose_last_charges_stand_in_the_log_beside_it_alone_is_old_without_it(
    federation: Federation,
) -> None:
    """A backup that copies ledger.db and not ledger.db-wal."""
    federation.train(1)
    ledger = federation.home.ledger
    with closing(sqlite3.connect(ledger)) as reader:
        reader.execute("SELECT count(*) FROM charges").fetchone()  # keeps the log from going
        federation.train(1, first=2)
        assert ledger.with_name("ledger.db-wal").stat().st_size > 0
        content = ledger.read_bytes()
    missing(federation, Path())
    ledger.write_bytes(content)
    assert isinstance(federation.answer(run="next", number=0), Refusal)
    assert federation.command("--declare-lost", "--yes")[0] == 0
    assert isinstance(federation.answer(run="next", number=0), Standing)


# --- decisions and disclosures -----------------------------------------------------------------


def typed(it: Federation, *words: str) -> str:
    """Type a command of the site; it succeeds."""
    write_site_config(it.home.site_yaml, SiteConfig(name="here", data=it.home.folder))
    done = CliRunner().invoke(app, [*words, "--home", str(it.home.folder)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def refused_run(it: Federation) -> None:
    Approvals(it.home.approvals).note("run", CONFIG, 0)
    typed(it, "refuse", "run", "--yes")


def paused(it: Federation) -> None:
    typed(it, "pause")


def stricter(it: Federation) -> None:
    config = SiteConfig(name="here", data=it.home.folder, hours="00:00-23:59")
    write_site_config(it.home.site_yaml, config)


DECIDED = {"refuse": refused_run, "pause": paused, "site.yaml": stricter}


@pytest.mark.parametrize("what", DECIDED)
def test_a_home_from_before_a_decision_releases_nothing_until_its_people_say_what_holds(
    federation: Federation, what: str
) -> None:
    federation.train(1)
    copy = federation.copy("backup")
    DECIDED[what](federation)
    # A refusal, as of a paused site, is told as every answer is where the records stood.
    federation.answer(run="next", number=0)
    spent = Ledger(federation.home.ledger).head()
    federation.put_back(copy)
    for number in (0, 1):
        answer = federation.answer(run="next", number=number)
        assert isinstance(answer, Refusal)
        assert answer.reason is RefusalReason.RECORDS
        assert "decided.jsonl" in federation.detail()
        assert "wardround-site records --declare-lost" in federation.detail()
    assert Ledger(federation.home.ledger).head() == spent
    status, said = federation.command("--declare-lost", "--yes")
    assert status == 0, said
    assert "no run is approved any more, and the site is paused" in said
    answer = federation.answer(run="next", number=0)
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.PAUSED
    typed(federation, "resume")
    assert isinstance(federation.answer(run="next", number=0), Standing)


def test_approvals_or_a_pause_put_back_alone_are_noticed_without_any_witness(
    federation: Federation,
) -> None:
    federation.train(1)
    copy = federation.copy("backup")
    refused_run(federation)
    federation.put_back(copy, "approvals.db")
    with pytest.raises(RecordsLost, match=r"approvals\.db has 0 decisions.*knows of 1"):
        SiteRecords(federation.home).check()
    typed(federation, "pause")  # hides nothing
    with pytest.raises(RecordsLost, match=r"approvals\.db"):
        SiteRecords(federation.home).check()
    assert federation.command("--declare-lost", "--yes")[0] == 0
    SiteRecords(federation.home).check()
    federation.home.paused.unlink()
    with pytest.raises(RecordsLost, match="wardround-site resume"):
        SiteRecords(federation.home).check()
    typed(federation, "resume")
    SiteRecords(federation.home).check()


def test_what_was_approved_before_decisions_were_lost_is_asked_for_again(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path / "approvals.db")
    fingerprint = approvals.decide_ahead(CONFIG, "approved", 0)
    approvals.void()
    assert approvals.decision(fingerprint, 0) == "waiting"
    approvals.decide_ahead(CONFIG, "approved", 0)
    assert approvals.decision(fingerprint, 0) == "approved"
    approvals.decide_ahead(CONFIG, "declined", 0)
    approvals.void()
    assert approvals.decision(fingerprint, 0) == "declined"


@pytest.mark.parametrize("how", ["alone", "whole home"])
def test_disclosures_from_before_a_message_are_refused_until_that_is_answered_for(
    federation: Federation, how: str
) -> None:
    federation.answer(number=0)
    copy = federation.copy("backup")
    federation.answer(run="next", number=0)
    federation.answer(run="other", number=0)
    federation.put_back(copy, *(["disclosures.jsonl"] if how == "alone" else []))
    answer = federation.answer(run="next", number=0)
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.RECORDS
    assert "disclosures.jsonl" in federation.detail()
    assert federation.command("--declare-lost", "--yes")[0] == 0
    assert isinstance(federation.answer(run="next", number=0), Standing)
    assert not federation.home.paused.exists()


# --- several federations -----------------------------------------------------------------------


def test_an_old_ledger_is_noticed_by_what_the_homes_other_federation_knows(
    federation: Federation,
) -> None:
    federation.train(1)
    copy = federation.copy("backup")
    federation.train(2, first=2)
    other = SiteRecords(federation.home.of("lung"))
    other.check()
    federation.put_back(copy, "ledger.db")
    with pytest.raises(RecordsLost, match=r"1 charges; records\.json knows of 3"):
        other.check()
    # The loss is one, and charged back once, whoever declares it.
    spent = len(Ledger(federation.home.ledger).history(COHORT))
    assert federation.command("--declare-lost", "--yes")[0] == 0
    other.check()
    SiteRecords(federation.home).check()
    assert sum(m.steps for m in Ledger(federation.home.ledger).history(COHORT)) == 3 * (
        Ledger(federation.home.ledger).history(COHORT)[0].steps
    )
    assert spent == 1


def test_a_pause_holds_in_every_federation_and_a_lost_one_is_noticed_in_each(
    federation: Federation,
) -> None:
    federation.train(1)
    lung = SiteRecords(federation.home.of("lung"))
    lung.check()
    typed(federation, "pause")
    federation.home.paused.unlink()
    for records in (SiteRecords(federation.home), lung):
        with pytest.raises(RecordsLost, match="wardround-site resume"):
            records.check()
    typed(federation, "resume")
    lung.check()
