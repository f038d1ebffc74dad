from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from client.governance.disclosures import listed
from client.node.message_loop import MessageLoop
from client.privacy.ledger import Ledger
from client.transport.fleet_client import PendingMessage
from common.config.run_config import RunConfig
from common.data.weight_files import VARIABLE
from common.messages.signed_envelope import Envelope, facts_of, unseal
from common.messages.signing_key import load_private, public_text, verify
from common.messages.wire import (
    EvaluationRequest,
    Proposal,
    Refusal,
    RefusalReason,
    SiteUpdate,
    Standing,
)
from common.platform.errors import LinkDown
from tests.client.answering import CONFIG, InlineWorker, Letters, question
from tests.client.letters import FolderFleet


def turns(letters: MessageLoop, fleet: FolderFleet, count: int = 4) -> None:
    for _ in range(count):
        letters.turn(fleet, 0.1)


def only(fleet: FolderFleet) -> Envelope:
    (answer,) = fleet.answers()
    return answer


def jobs(letters: MessageLoop) -> list[str]:
    assert isinstance(letters.transport.worker, InlineWorker)
    return letters.transport.worker.jobs


def test_a_question_is_answered_with_a_signed_update_and_one_line(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.ask(question())
    letters = Letters(tmp_path / "home").open()
    turns(letters, fleet)
    answer = only(fleet)
    update = unseal(answer.header, answer.frames)
    assert isinstance(update, SiteUpdate)
    assert update.spend is not None
    public = public_text(load_private(tmp_path / "home" / "key"))
    assert verify(public, answer.digest, answer.signature)
    (line,) = listed(tmp_path / "home" / "disclosures.jsonl")
    assert line.disclosure.sha256 == answer.digest.hex()
    assert line.disclosure.epsilon == update.spend.cohort_epsilon
    assert not list((tmp_path / "home" / "inbox").iterdir())


def test_the_same_question_gets_the_same_bytes_and_is_charged_once(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    for number in range(3):
        fleet.ask(question(), number=number)
        turns(Letters(tmp_path / "home").open(), fleet)  # each time another process
    answers = fleet.answers()
    assert len(answers) == 3
    assert len(set(answers)) == 1
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 1
    assert [x.again for x in listed(tmp_path / "home" / "disclosures.jsonl")] == [False, True, True]


def test_another_question_of_the_same_round_is_charged_again(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home").open()
    for factor in (1, 2):
        weights = {name: value + factor for name, value in question().weights.items()}
        fleet.ask(replace(question(), weights=weights))
        turns(letters, fleet)
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 2
    assert len({a.digest for a in fleet.answers()}) == 2


def test_nothing_else_is_waited_for_while_a_request_is_half_here(tmp_path: Path) -> None:
    """The rest comes at any moment; a pull would be waited for as long as nothing else comes."""
    waits: list[float] = []

    class Slow(FolderFleet):
        sent = False

        def pull(self, wait_seconds: float) -> PendingMessage | None:
            waits.append(wait_seconds)
            return super().pull(wait_seconds)

        def fetch(self, run_id: int, name: str) -> bytes | None:
            return super().fetch(run_id, name) if self.sent else None

    fleet = Slow(tmp_path / "fleet")
    fleet.ask(question())
    letters = Letters(tmp_path / "home").open()
    letters.turn(fleet, 20.0)
    assert waits == [20.0]
    assert letters.open == 1
    letters.turn(fleet, 20.0)
    fleet.sent = True
    turns(letters, fleet)
    only(fleet)
    assert 20.0 not in waits[1:]


def test_a_rule_that_changes_while_a_request_is_waited_for_holds_for_it(tmp_path: Path) -> None:
    site, fleet = Letters(tmp_path / "home"), FolderFleet(tmp_path / "fleet")
    letters = site.open()
    site.approval = "manual"  # as site.yaml says by now

    def refresh() -> None:
        letters.admission = site.admission()

    letters.refresh = refresh
    fleet.ask(question())
    turns(letters, fleet)
    answer = only(fleet)
    refusal = unseal(answer.header, answer.frames)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.NOT_APPROVED
    assert jobs(letters) == []


@pytest.mark.parametrize("call", ["pull", "fetch", "confirm", "offer", "give"])
def test_a_cut_anywhere_loses_nothing_and_repeats_nothing(tmp_path: Path, call: str) -> None:
    left = [3]

    def broken(name: str) -> bool:
        if name == call and left[0] > 0:
            left[0] -= 1
            return left[0] % 2 == 0
        return False

    fleet = FolderFleet(tmp_path / "fleet", broken)
    fleet.ask(question())
    letters = Letters(tmp_path / "home").open()
    for _ in range(12):
        try:
            letters.turn(fleet, 0.1)
        except LinkDown:
            continue
    assert left[0] == 0 or call in {"confirm", "offer"}
    assert isinstance(unseal(only(fleet).header, only(fleet).frames), SiteUpdate)
    assert set(fleet.bytes_received().values()) == {1}  # no object was sent twice
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 1
    assert len(jobs(letters)) == 1


def test_an_answer_that_was_damaged_on_disk_is_made_and_charged_anew(tmp_path: Path) -> None:
    cut = [True]
    fleet = FolderFleet(tmp_path / "fleet", lambda call: call == "offer" and cut[0])
    fleet.ask(question())
    letters = Letters(tmp_path / "home").open()
    with pytest.raises(LinkDown):
        turns(letters, fleet)
    (kept,) = (tmp_path / "home" / "outbox").glob("*/*.answer")
    kept.write_bytes(kept.read_bytes()[:-1])
    cut[0] = False
    turns(letters, fleet)
    assert isinstance(unseal(only(fleet).header, only(fleet).frames), SiteUpdate)
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 2


def test_a_proposal_is_answered_with_a_standing_and_charges_nothing(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.ask(Proposal(run="run", round=0, seed=0, config=CONFIG))
    turns(Letters(tmp_path / "home").open(), fleet)
    standing = unseal(only(fleet).header, only(fleet).frames)
    assert isinstance(standing, Standing)
    assert standing.patients == 20  # as agreed in public; there are 16
    assert standing.epsilon == pytest.approx(2.0, rel=1e-3)
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 0


def refused_with(tmp_path: Path, letters: Letters, fleet: FolderFleet) -> RefusalReason:
    opened = letters.open()
    turns(opened, fleet)
    refusal = unseal(only(fleet).header, only(fleet).frames)
    assert isinstance(refusal, Refusal)
    assert jobs(opened) == []  # nothing of the site was looked at
    assert not (tmp_path / "home" / "ledger.db").exists()
    return refusal.reason


def test_nothing_is_done_for_a_run_that_nobody_approved(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.ask(question())
    letters = Letters(tmp_path / "home", approval="manual")
    assert refused_with(tmp_path, letters, fleet) is RefusalReason.NOT_APPROVED
    (seen,) = letters.admission().approvals.listed()
    assert (seen.run, seen.decision) == ("run", "waiting")


@pytest.mark.parametrize(
    ("decision", "expected"), [("approved", SiteUpdate), ("declined", Refusal)]
)
def test_a_decision_takes_effect_at_the_next_question(
    tmp_path: Path, decision: Literal["approved", "declined"], expected: type
) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home", approval="manual")
    letters.admission().approvals.decide_ahead(CONFIG, decision)
    fleet.ask(question())
    turns(letters.open(), fleet)
    assert isinstance(unseal(only(fleet).header, only(fleet).frames), expected)


def test_a_changed_configuration_needs_a_new_approval(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home", approval="manual")
    letters.admission().approvals.decide_ahead(CONFIG, "approved")
    more = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"rounds": 5})})
    fleet.ask(replace(question(), config=more))
    assert refused_with(tmp_path, letters, fleet) is RefusalReason.NOT_APPROVED


def test_a_run_whose_first_weights_are_not_here_is_refused_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    held = b"no weights, but nobody reads them here"
    sha256 = hashlib.sha256(held).hexdigest()
    start = {"sha256": sha256, "names": "monai", "source": "a paper", "licence": "CC0"}
    content = CONFIG.model_dump(mode="json") | {
        "cohort": {"images": {"size": [16, 16]}},
        "model": {"network": "resnet18", "start": start},
    }
    config = RunConfig.model_validate(content)
    letters = Letters(tmp_path / "home", approval="manual")
    for number, (given, reason, said) in enumerate(
        (
            (None, RefusalReason.WEIGHTS, f"Put their file into {tmp_path} as {sha256}"),
            (b"other bytes", RefusalReason.WEIGHTS, f"expected {sha256}"),
            (held, RefusalReason.NOT_APPROVED, ""),
        )
    ):
        if given is not None:
            (tmp_path / f"{sha256}.safetensors").write_bytes(given)
        fleet = FolderFleet(tmp_path / f"fleet-{number}")
        fleet.ask(replace(question(run=f"run-{number}"), config=config))
        assert refused_with(tmp_path, letters, fleet) is reason
        assert said in str(letters.told)


def test_another_release_is_refused_before_anything_of_it_is_read(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.release = "0" * 64
    fleet.ask(question())
    reason = refused_with(tmp_path, Letters(tmp_path / "home"), fleet)
    assert reason is RefusalReason.RELEASE


def test_a_paused_site_refuses(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.ask(question())
    letters = Letters(tmp_path / "home")
    letters.home.mkdir(parents=True)
    (letters.home / "paused").touch()
    assert refused_with(tmp_path, letters, fleet) is RefusalReason.PAUSED


def test_a_question_whose_time_is_over_is_not_charged_for(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.ask(question(), seconds=0.001)
    letters = Letters(tmp_path / "home").open()
    turns(letters, fleet)
    assert fleet.answers() == []
    assert jobs(letters) == []
    assert letters.open == 0


def test_a_round_that_was_overtaken_is_not_trained(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home").open()
    fleet.ask(question(1))
    fleet.ask(question(2))
    for _ in range(2):  # both come before either is worked at
        letters._receive(fleet, 0.1)
    letters._decide(fleet)
    turns(letters, fleet)
    assert [facts_of(a.header)["round"] for a in fleet.answers()] == [2]
    assert len(jobs(letters)) == 1


def test_a_request_that_is_none_is_dropped_and_told_of(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    name = fleet.ask(question())
    for path in (fleet.folder / "objects").iterdir():
        if path.read_bytes().startswith(b"ConfigRecord "):
            path.unlink()
    home = Letters(tmp_path / "home")
    letters = home.open()
    turns(letters, fleet)
    assert name
    assert fleet.answers() == []
    assert letters.open == 0
    assert [event for event, _ in home.told] == ["a request is dropped"]


def test_weights_of_a_request_reach_the_network_bit_for_bit(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    asked = question()
    fleet.ask(asked)
    turns(Letters(tmp_path / "home").open(), fleet)
    update = unseal(only(fleet).header, only(fleet).frames)
    assert isinstance(update, SiteUpdate)
    assert update.delta.keys() == asked.weights.keys()
    assert all(torch.isfinite(value).all() for value in update.delta.values())


@pytest.mark.slow
def test_a_site_killed_anywhere_releases_nothing_uncharged_and_nothing_twice_unlike(
    tmp_path: Path,
) -> None:
    program = Path(__file__).parents[1] / "dying_letters.py"
    done = subprocess.run(
        [sys.executable, program, tmp_path, "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["killed"] > 60


@pytest.mark.parametrize("number", [0, 5])
def test_a_round_that_the_approved_configuration_does_not_have_is_refused(
    tmp_path: Path, number: int
) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    fleet.ask(question(number))
    reason = refused_with(tmp_path, Letters(tmp_path / "home"), fleet)
    assert reason is RefusalReason.CONFIGURATION


def test_a_site_that_lets_no_metrics_leave_trains_and_does_not_report(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home", metrics="none")
    asked = EvaluationRequest(
        run="run", round=1, seed=0, config=CONFIG, weights=question().weights, split="validation"
    )
    fleet.ask(asked)
    assert refused_with(tmp_path, letters, fleet) is RefusalReason.METRICS
    fleet.ask(question())
    turns(letters.open(), fleet)
    kinds = sorted(str(facts_of(a.header)["kind"]) for a in fleet.answers())
    assert kinds == ["refusal", "update"]


def test_what_was_declined_stays_declined_where_approval_is_automatic(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home")
    letters.admission().approvals.decide_ahead(CONFIG, "declined")
    fleet.ask(question())
    assert refused_with(tmp_path, letters, fleet) is RefusalReason.DECLINED


def test_ever_other_run_names_wait_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.governance.repetition_limits._RUNS_AT_ONCE", 3)
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home").open()
    for number in range(8):
        fleet.ask(replace(question(), run=f"run-{number}"), number=number)
        turns(letters, fleet)
    answers = [unseal(x.header, x.frames) for x in fleet.answers()]
    refused = [x for x in answers if isinstance(x, Refusal)]
    assert {x.reason for x in refused} == {RefusalReason.NOT_APPROVED}
    assert len(answers) - len(refused) == 3
    assert {seen.run for seen in letters.admission.approvals.listed()} == {
        "run-0",
        "run-1",
        "run-2",
    }
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 3
    # A run that was begun goes on.
    fleet.ask(question(2, "run-1"), number=9)
    turns(letters, fleet)
    assert Ledger(tmp_path / "home" / "ledger.db").head().charges == 4


def test_updates_are_kept_of_the_last_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.transport.outbox._MOST_RUNS", 3)
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home").open()
    for number in range(6):
        fleet.ask(replace(question(), run=f"run-{number}"), number=number)
        turns(letters, fleet)
    assert len(fleet.answers()) == 6
    assert len(list((tmp_path / "home" / "outbox").iterdir())) == 3


def test_a_run_that_waits_for_approval_leaves_one_line_for_many_questions(tmp_path: Path) -> None:
    fleet = FolderFleet(tmp_path / "fleet")
    letters = Letters(tmp_path / "home", approval="manual").open()
    for number in range(10):
        fleet.ask(Proposal(run="run", round=0, seed=0, config=CONFIG), number=number)
        turns(letters, fleet, 2)
    assert len(fleet.answers()) == 10
    path = tmp_path / "home" / "disclosures.jsonl"
    assert [line.times for line in listed(path)] == [1]
    letters.close()
    assert [line.times for line in listed(path)] == [1, 9]
