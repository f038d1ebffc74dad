"""A daemon that runs when a patient is withdrawn: its next answer is without them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typing_extensions import override

from client.node.request_handler import Loaded, RequestHandler
from client.node.worker import site_context
from client.node.worker_process import WorkerProcess
from client.privacy.ledger import Ledger
from client.site.home import Home
from client.site.policy_section import PolicyRules
from client.site.site_config import SiteConfig, load_site_config, write_site_config
from client.site.withdrawals import writing
from client.transport.outbox import Outbox
from common.config.run_config import parse_config
from common.data.kept_items import ItemGone
from common.messages.signed_envelope import seal, unseal, write_envelope
from common.messages.signing_key import new_private_key, private_text
from common.messages.wire import (
    Answer,
    EvaluationRequest,
    Proposal,
    Refusal,
    Request,
    SiteReport,
    SiteUpdate,
    Standing,
    TrainRequest,
)
from common.models.run_network import initial_weights
from tests.client.terminals import same_split, wait_for

CONFIG = parse_config("""
name: rounds
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}, smallest_cohort: 5, split: {validation_fraction: 0.4}}
model: {network: table}
training: {rounds: 3, batch_patients: all, optimizer: sgd, learning_rate: 0.1}
evaluation: {count_noise: 8.0}
privacy: {unit: patient, epsilon: 2.0, default_patients: declared, delta: 0.001}
""").in_force()
PROPOSAL = Proposal(run="run", round=0, seed=0, config=CONFIG)
TRAIN = TrainRequest(run="run", round=1, seed=0, config=CONFIG, weights=initial_weights(CONFIG, 0))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"P{n},{40 + n},{n % 2}\n" for n in range(40))
    (data / "labels.csv").write_text(f"PatientID,age,ill\n{rows}", encoding="utf-8")
    found = Home(tmp_path / "home")
    config = SiteConfig(name="north", data=data, policy=PolicyRules(tell_patients=True))
    write_site_config(found.site_yaml, config)
    same_split(found)
    return found


def withdraw(home: Home, *patients: str) -> None:
    with writing(home.withdrawals) as log:
        for patient in patients:
            log.withdraw(patient)


class WatchedDesk(RequestHandler):
    """A handler that notes who took part in each answer; `meanwhile` are withdrawn during one."""

    def __init__(self, home: Home) -> None:
        self.told: list[str] = []
        super().__init__(site_context(home, load_site_config(home.site_yaml)), self.told.append)
        self.home, self.meanwhile = home, list[str]()
        self.took_part: list[frozenset[str]] = []

    @override
    def _answer(self, loaded: Loaded, request: Request) -> Answer:
        answer = super()._answer(loaded, request)
        self.took_part.append(
            frozenset(
                (
                    *loaded.site.train.pseudonyms,
                    *loaded.site.validation.pseudonyms,
                    *loaded.site.test.pseudonyms,
                )
            )
        )
        withdraw(self.home, *self.meanwhile)
        self.meanwhile = []
        return answer


@pytest.mark.parametrize(
    "request_",
    [
        PROPOSAL,
        TRAIN,
        EvaluationRequest(
            run="run", round=3, seed=0, config=CONFIG, weights=TRAIN.weights, split="test"
        ),
    ],
)
def test_the_next_answer_after_a_withdrawal_is_without_the_patient(
    home: Home, request_: Request
) -> None:
    handler = WatchedDesk(home)
    told, repeated = (handler.answer(request_) for _ in range(2))
    assert not isinstance(told, Refusal)
    assert not isinstance(repeated, Refusal)
    withdraw(home, "P7")
    anew = handler.answer(request_)
    assert not isinstance(anew, Refusal)
    if isinstance(told, SiteReport):
        assert seal(repeated).digest == seal(told).digest
        # The answer that they took part in is not given again.
        assert seal(anew).digest != seal(told).digest
    first, again, after = handler.took_part
    assert first == again
    assert len(first) == 40
    assert after == first - {"P7"}


def test_an_answer_under_way_when_a_patient_is_withdrawn_is_given_again_without_them(
    home: Home,
) -> None:
    """A private round is then charged twice: what was computed may have been seen."""
    handler = WatchedDesk(home)
    handler.meanwhile = ["P3", "P9"]
    answer = handler.answer(TRAIN)
    assert isinstance(answer, SiteUpdate)
    before, after = handler.took_part
    assert after == before - {"P3", "P9"}
    assert len(Ledger(home.ledger).history("patients")) == 2
    assert any("withdrawn meanwhile" in text for text in handler.told)


class LosingDesk(WatchedDesk):
    """A handler whose prepared images go away during an answer, as often as is said."""

    losses = 1

    @override
    def _answer(self, loaded: Loaded, request: Request) -> Answer:
        if self.losses:
            self.losses -= 1
            withdraw(self.home, *self.meanwhile)
            message = "gone"
            raise ItemGone(message)
        return super()._answer(loaded, request)


def test_images_that_go_away_with_a_patient_are_read_anew_without_them(home: Home) -> None:
    handler = LosingDesk(home)
    handler.meanwhile = ["P3"]
    assert isinstance(handler.answer(TRAIN), SiteUpdate)
    (after,) = handler.took_part
    assert len(after) == 39
    assert "P3" not in after


def test_images_that_go_away_by_themselves_end_an_answer_and_not_the_next(home: Home) -> None:
    handler = LosingDesk(home)
    assert isinstance(handler.answer(TRAIN), Refusal)
    assert isinstance(handler.answer(TRAIN), SiteUpdate)


def test_a_cohort_that_becomes_too_small_is_refused_not_trained_on(home: Home) -> None:
    handler = WatchedDesk(home)
    standing = handler.answer(PROPOSAL)
    assert isinstance(standing, Standing)
    assert standing.patients is not None
    withdraw(home, *(f"P{n}" for n in range(36)))
    assert isinstance(handler.answer(PROPOSAL), Refusal)
    assert isinstance(handler.answer(TRAIN), Refusal)
    assert not Ledger(home.ledger).history("patients")


def test_a_damaged_log_of_withdrawals_lets_nothing_be_computed(home: Home) -> None:
    handler = WatchedDesk(home)
    withdraw(home, "P1", "P2")
    lines = home.withdrawals.read_text().splitlines(keepends=True)
    home.withdrawals.write_text("".join(lines[1:]))
    with pytest.raises(Exception, match="does not fit its hash"):
        handler.answer(TRAIN)
    assert not handler.took_part


@pytest.mark.slow
def test_a_worker_process_that_runs_counts_the_patient_no_more(home: Home) -> None:
    home.key.write_text(private_text(new_private_key()))
    proposal = home.folder / "proposal.request"
    write_envelope(proposal, seal(PROPOSAL))
    worker = WorkerProcess(home.folder, subprocess.DEVNULL)
    try:
        pids = set()
        counts = []
        for name in ("before", "after"):
            worker.start()
            wait_for(lambda: worker.look() is None and worker.can_take, 60.0)
            assert worker.give(proposal, name)
            wait_for(lambda: worker.look() is not None, 60.0)
            answer = Outbox(home.outbox).find(name)
            assert answer is not None
            standing = unseal(answer.header, answer.frames)
            assert isinstance(standing, Standing)
            counts.append(standing.patients)
            pids.add(worker.pid)
            # All of them are in some part; enough leave that some of them trained.
            withdraw(home, *(f"P{n}" for n in range(20)))
        assert len(pids) == 1
        assert counts[0] is not None
        assert counts[1] is not None
        assert counts[1] < counts[0]
    finally:
        worker.stop()
