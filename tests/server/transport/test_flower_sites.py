from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import server.rounds.approval
import server.rounds.quorum
from client.cohort_statistics.description import Telling
from client.cohort_statistics.run_costs import told_of_everybody
from client.node.request_handler import COHORT
from client.privacy.ledger import Ledger, Limit
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, Selection, parse_config
from common.data.sample import Patients
from common.data.weights import fingerprint
from common.messages.signing_key import new_private_key, private_text
from common.messages.wire import Answer, Refusal, RefusalReason, SiteReport, SiteUpdate, Standing
from common.metrics.statistics import Statistics
from common.platform.errors import RunFailed
from common.privacy.noise import SimulatedNoise
from server.aggregation.rules import aggregator_of
from server.rounds.non_admission_reasons import Fault
from server.rounds.run_rounds import RunRecords, begin, run_rounds
from server.rounds.run_state import RunState
from server.service.run_book import RunEntry
from server.service.run_queue import RunQueue
from simulations.engines.in_process import InProcessSites
from tests.client import answering
from tests.client.local_runs import config_of, learnable
from tests.privacy.made_up import patients_of, volumes_of_patients
from tests.server.coordinator import Running, made, running
from tests.server.loopback import Hospital, Killed, run_over

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, settings = made(tmp_path_factory.mktemp("coordinator"))
    with running(folder, settings) as found:
        yield found


def patients_at(seed: int, image: tuple[int, ...] = (0,)) -> Patients:
    return learnable(patients_of((1, 2, 3, 1) * 4, image, seed))


@pytest.fixture
def image() -> tuple[int, ...]:
    """Return the shape of the hospitals' images: they have none."""
    return (0,)


@pytest.fixture
def hospitals(
    coordinator: Running, tmp_path: Path, image: tuple[int, ...]
) -> Iterator[dict[str, Hospital]]:
    found = {}
    for seed, name in enumerate(("east", "north", "west")):
        site = coordinator.enrolled(name)
        found[name] = Hospital(coordinator, site, tmp_path / name, patients_at(seed, image))
    yield found
    for hospital in found.values():
        hospital.end()
    for name, hospital in found.items():
        hospital.stop()
        coordinator.gateway.revoke(name)


@contextmanager
def rounds_over(
    coordinator: Running, config: RunConfig, folder: Path, state: RunState | None = None
) -> Iterator[Callable[[], RunState]]:
    """Yield what runs the rounds of a new Flower run."""
    aggregator = aggregator_of(config.aggregation, 3)
    torch.set_num_threads(1)
    first = state or begin(config, "run", 0, aggregator)
    with run_over(coordinator, config, folder) as (sites, _):
        yield lambda: run_rounds(config, sites, aggregator, first, RunRecords())


def simulated(config: RunConfig, image: tuple[int, ...] = (0,)) -> RunState:
    names = enumerate(("east", "north", "west"))
    sites = {
        name: Site(name=name, train=p, validation=p, test=p)
        for name, p in ((n, patients_at(s, image)) for s, n in names)
    }
    aggregator = aggregator_of(config.aggregation, 3)
    state = begin(config, "run", 0, aggregator)
    return run_rounds(config, InProcessSites(sites, config, 0), aggregator, state, RunRecords())


def test_a_federation_ends_in_the_bits_of_its_simulation(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    config = with_rounds(config_of("aggregation: {smallest_quorum: 3}"), 4)
    for hospital in hospitals.values():
        hospital.start()
    with rounds_over(coordinator, config, tmp_path / "run") as run:
        state = run()
    expected = simulated(config)
    assert fingerprint(state.weights) == fingerprint(expected.weights)
    assert state.history[-1].score == expected.history[-1].score
    assert [sorted(r.updates) for r in state.history] == [["east", "north", "west"]] * 4


@pytest.mark.parametrize("image", [(1, 16, 16)])
def test_a_federation_on_bags_in_bfloat16_ends_in_the_bits_of_its_simulation(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path, image: tuple[int, ...]
) -> None:
    config = config_of(
        "aggregation: {smallest_quorum: 3}",
        ", images_per_patient: 2, precision: bf16",
        cohort=", images: {size: [16, 16]}",
        model="{network: small_cnn, width: 2, pool: attention}",
    )
    config = with_rounds(config, 2)
    for hospital in hospitals.values():
        hospital.start()
    with rounds_over(coordinator, config, tmp_path / "run") as run:
        state = run()
    expected = simulated(config, image)
    assert fingerprint(state.weights) == fingerprint(expected.weights)
    assert state.history[-1].score == expected.history[-1].score


PATCHES = """
name: patches
task: {kind: segmentation, structures: {lesion: [1]}}
cohort: {images: {patch: [16, 16]}}
model: {network: unet, width: 2}
training:
  {rounds: 2, local_steps: 1, patches_per_patient: 2, batch_patients: 3, optimizer: sgd,
   learning_rate: 0.1}
aggregation: {smallest_quorum: 3}
selection: {rule: last}
personalisation: {method: none}
privacy: {unit: patient, epsilon: 2.0, default_patients: 16, delta: 0.001}
"""


def test_a_private_federation_on_patches_ends_in_the_bits_of_its_simulation(
    coordinator: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both draw the same noise, which real sites never do: theirs cannot be repeated.

    Without privacy: tests/end_to_end/test_patches.py, by processes.
    """
    config = parse_config(PATCHES).in_force()
    names = ("east", "north", "west")
    volumes = {
        name: volumes_of_patients(
            made_at(tmp_path / "data" / name), (1, 2, 1, 1) * 4, (16, 16), seed=n
        )
        for n, name in enumerate(names)
    }
    guards = {name: guard_of(tmp_path / "ledgers" / name, name, config) for name in names}
    sites = {
        name: Site(name=name, train=p, validation=p, test=p, guard=guards[name])
        for name, p in volumes.items()
    }
    aggregator = aggregator_of(config.aggregation, 3)
    state = begin(config, "run", 0, aggregator)
    torch.set_num_threads(1)
    expected = run_rounds(config, InProcessSites(sites, config, 0), aggregator, state, RunRecords())
    # Hospitals are threads of their names.
    monkeypatch.setattr(
        answering, "ChaChaNoise", lambda: SaidToBeReal(threading.current_thread().name)
    )
    hospitals = {
        name: Hospital(coordinator, coordinator.enrolled(name), tmp_path / name, patients)
        for name, patients in volumes.items()
    }
    try:
        for hospital in hospitals.values():
            hospital.start()
        with rounds_over(coordinator, config, tmp_path / "run") as run:
            found = run()
    finally:
        for name, hospital in hospitals.items():
            hospital.stop()
            coordinator.gateway.revoke(name)
    assert [sorted(r.updates) for r in found.history] == [list(names)] * 2
    assert fingerprint(found.weights) == fingerprint(expected.weights)
    assert fingerprint(found.weights) != fingerprint(state.weights)
    spent = [dict(record.epsilon) for record in found.history]
    assert spent == [dict(record.epsilon) for record in expected.history]
    assert all(sorted(of_round) == list(names) for of_round in spent)


def made_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


class SaidToBeReal(SimulatedNoise):
    """Repeatable noise that hides it: between hospitals what says so is not admitted."""

    simulated = False

    def of_round(self, run: str, round_number: int) -> SaidToBeReal:
        return SaidToBeReal(*self._seed, run, round_number)


def guard_of(folder: Path, name: str, config: RunConfig) -> Guard:
    """Return what the hospital's own process guards it with."""
    folder.mkdir(parents=True)
    return Guard(
        ledger=Ledger(folder / "ledger.db"),
        limit=Limit(epsilon=1000.0, delta=0.001),
        cohort=COHORT,
        noise=SaidToBeReal(name),
        beside=told_of_everybody(config, Telling(noise=0.0)),
    )


SHORT = "aggregation: {smallest_quorum: 2}\nselection: {rule: last}\nexchange: {round_minutes: %s}"


def short(minutes: float = 1.0, rounds: int = 2) -> RunConfig:
    return with_rounds(config_of(SHORT % minutes), rounds)


def with_rounds(config: RunConfig, rounds: int) -> RunConfig:
    training = config.training.model_copy(update={"rounds": rounds})
    return config.model_copy(update={"training": training})


def not_a_number(answer: Answer) -> Answer:
    return _with_delta(answer, lambda value: torch.full_like(value, torch.nan))


def huge(answer: Answer) -> Answer:
    return _with_delta(answer, lambda value: value + 1e12)


def misshapen(answer: Answer) -> Answer:
    return _with_delta(answer, lambda value: value.reshape(-1)[:1])


def of_another_run(answer: Answer) -> Answer:
    return replace(answer, run="other") if isinstance(answer, SiteUpdate) else answer


def of_another_round(answer: Answer) -> Answer:
    return replace(answer, round=9) if isinstance(answer, SiteUpdate) else answer


def of_another_site(answer: Answer) -> Answer:
    return replace(answer, site="north") if isinstance(answer, SiteUpdate) else answer


def a_report(answer: Answer) -> Answer:
    if not isinstance(answer, SiteUpdate):
        return answer
    statistics = Statistics(patients=np.array(1.0), cells={}, sums={})
    return SiteReport(run=answer.run, round=answer.round, site=answer.site, statistics=statistics)


def _with_delta(answer: Answer, change: Callable[[torch.Tensor], torch.Tensor]) -> Answer:
    if not isinstance(answer, SiteUpdate):
        return answer
    return replace(answer, delta={n: change(v) for n, v in answer.delta.items()})


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (not_a_number, Fault.NOT_FINITE),
        (huge, Fault.TOO_LARGE),
        (misshapen, Fault.WRONG_TENSORS),
        (of_another_run, Fault.WRONG_RUN),
        (of_another_round, Fault.WRONG_ROUND),
        (of_another_site, Fault.UNREADABLE),
        (a_report, Fault.UNREADABLE),
    ],
)
def test_a_bad_update_is_refused_with_its_reason_and_the_round_goes_on(
    coordinator: Running,
    hospitals: dict[str, Hospital],
    tmp_path: Path,
    lie: Callable[[Answer], Answer],
    fault: Fault,
) -> None:
    hospitals["west"].lie = lie
    for hospital in hospitals.values():
        hospital.start()
    with rounds_over(coordinator, short(rounds=1), tmp_path / "run") as run:
        (record,) = run().history
    assert sorted(record.updates) == ["east", "north"]
    (told,) = record.faults
    assert told.startswith(f"west: {fault.value}")


def test_an_update_that_another_key_signed_is_refused(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    for hospital in hospitals.values():
        hospital.start()
    # The site's daemon proves its key to the listener; its answers are signed with another.
    hospitals["west"].stop()
    (hospitals["west"].home / "key").write_text(private_text(new_private_key()))
    hospitals["west"].start()
    with rounds_over(coordinator, short(minutes=0.2, rounds=1), tmp_path / "run") as run:
        (record,) = run().history
    assert sorted(record.updates) == ["east", "north"]


def test_a_straggler_is_dropped_at_the_deadline_and_rejoins(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    slept = threading.Event()

    def slow(answer: Answer) -> Answer:
        if isinstance(answer, SiteUpdate) and not slept.is_set():
            slept.set()
            threading.Event().wait(20)
        return answer

    hospitals["west"].lie = slow
    for hospital in hospitals.values():
        hospital.start()
    with rounds_over(coordinator, short(minutes=0.25, rounds=3), tmp_path / "run") as run:
        history = run().history
    assert sorted(history[0].updates) == ["east", "north"]
    assert history[0].left_out == {"west": "it had not come in time"}
    assert history[0].faults == (
        "west: it had not come in time (no answer within exchange.round_minutes)",
    )
    assert "west" in history[-1].updates


@pytest.mark.parametrize("late_is", ["its daemon", "its approval"])
def test_a_site_that_comes_late_joins_the_next_round(
    coordinator: Running,
    hospitals: dict[str, Hospital],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    late_is: str,
) -> None:
    monkeypatch.setattr(server.rounds.quorum, "_ABSENT_SECONDS", 2.0)
    monkeypatch.setattr(server.rounds.approval, "_SOON_SECONDS", 0.2)
    config = with_rounds(config_of(SHORT % 1.0), 8)
    began, said = threading.Event(), list[str]()

    def mark(answer: Answer) -> Answer:
        if isinstance(answer, SiteUpdate):
            began.set()
        return answer

    def come() -> None:
        board = tmp_path / "run" / "status.json"
        while not began.wait(0.05):
            text = json.loads(board.read_text())["sentence"] if board.exists() else ""
            said.extend(re.findall(r"; (starts without .*)", text))
        if late_is == "its daemon":
            hospitals["west"].start()
        else:
            approvals = hospitals["west"].letters.admission().approvals
            approvals.decide(config.fingerprint(), "approved")

    hospitals["east"].lie = mark
    hospitals["west"].approval = "automatic" if late_is == "its daemon" else "manual"
    for name in ("east", "north") if late_is == "its daemon" else hospitals:
        hospitals[name].start()
    late = threading.Thread(target=come)
    late.start()
    with rounds_over(coordinator, config, tmp_path / "run") as run:
        history = run().history
    late.join()
    assert sorted(history[0].updates) == ["east", "north"]
    assert sorted(history[-1].updates) == ["east", "north", "west"]
    assert re.fullmatch(r"starts without west at [0-9:]{5} \(--wait keeps waiting\)", said[-1])


def test_a_daemon_that_starts_anew_in_a_round_is_asked_again(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    first = threading.Event()

    def killed(answer: Answer) -> Answer:
        if isinstance(answer, SiteUpdate) and not first.is_set():
            first.set()
            raise Killed  # before the answer is kept
        return answer

    hospitals["west"].lie = killed
    for hospital in hospitals.values():
        hospital.start()
    again = threading.Thread(target=lambda: (first.wait(60), hospitals["west"].start()))
    again.start()
    with rounds_over(coordinator, short(rounds=1), tmp_path / "run") as run:
        (record,) = run().history
    again.join()
    assert sorted(record.updates) == ["east", "north", "west"]


def test_a_run_that_too_few_sites_approve_says_why_at_once(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    for name in ("east", "north"):
        hospitals[name].private_only = True
    for hospital in hospitals.values():
        hospital.start()
    with (
        rounds_over(coordinator, short(), tmp_path / "run") as run,
        pytest.raises(RunFailed, match="east: the site takes part in private runs only"),
    ):
        run()


def test_a_site_that_refuses_is_left_out_and_the_others_go_on(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    hospitals["north"].private_only = True
    for hospital in hospitals.values():
        hospital.start()
    with rounds_over(coordinator, short(), tmp_path / "run") as run:
        history = run().history
    assert [sorted(r.updates) for r in history] == [["east", "west"]] * 2


def reports_nothing(answer: Answer) -> Answer:
    if not isinstance(answer, SiteReport):
        return answer
    reason = RefusalReason.TOO_FEW_PATIENTS
    return Refusal(run=answer.run, round=answer.round, site=answer.site, reason=reason)


def test_sites_that_report_nothing_train_all_the_same(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    for hospital in hospitals.values():
        hospital.lie = reports_nothing
        hospital.start()
    config = short(rounds=2).model_copy(update={"selection": Selection(rule="best", every=1)})
    with rounds_over(coordinator, config, tmp_path / "run") as run:
        history = run().history
    assert [sorted(r.updates) for r in history] == [["east", "north", "west"]] * 2


def test_a_run_waits_for_a_person_to_approve_and_then_starts(
    coordinator: Running, hospitals: dict[str, Hospital], tmp_path: Path
) -> None:
    hospitals["west"].approval = "manual"
    for hospital in hospitals.values():
        hospital.start()
    config = short(rounds=1)

    def approve() -> None:
        approvals = hospitals["west"].letters.admission().approvals
        board = tmp_path / "run" / "status.json"
        while not (approvals.listed() and board.exists() and "not approved" in board.read_text()):
            threading.Event().wait(0.05)
        approvals.decide(config.fingerprint(), "approved")

    person = threading.Thread(target=approve)
    person.start()
    with rounds_over(coordinator, config, tmp_path / "run") as run:
        (record,) = run().history
    person.join()
    assert sorted(record.updates) == ["east", "north", "west"]


@dataclass
class InQueue:
    """A run's turn, of a queue in this process."""

    queue: RunQueue
    entry: RunEntry
    gave_way: threading.Event = field(default_factory=threading.Event)

    def take(self, ready: Mapping[str, int | None], least: int) -> tuple[str, ...]:
        return tuple(sorted(self.queue.work_with(self.entry, ready, least)[0]))

    def give_way(self) -> None:
        self.queue.leave(self.entry.run)
        self.gave_way.set()


def test_a_busy_site_is_passed_over_and_joins_when_it_has_room(
    coordinator: Running,
    hospitals: dict[str, Hospital],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server.rounds.quorum, "_ABSENT_SECONDS", 0.5)
    queue = RunQueue(1)
    other = RunEntry(run="other", created="2026")
    turn = InQueue(queue, RunEntry(run="run", created="2027"))
    updates: list[str] = []

    def serves_one(answer: Answer) -> Answer:
        return replace(answer, runs_at_once=1) if isinstance(answer, Standing) else answer

    def mark(answer: Answer) -> Answer:
        if isinstance(answer, SiteUpdate):
            updates.append("north")
            if len(updates) == 2:
                queue.leave("other")
        return answer

    hospitals["west"].lie, hospitals["north"].lie = serves_one, mark
    config = with_rounds(config_of(SHORT % 1.0), 5)
    aggregator = aggregator_of(config.aggregation, 3)
    torch.set_num_threads(1)
    with run_over(coordinator, config, tmp_path / "run", turn=turn) as (sites, _):
        late = threading.Thread(target=_come, args=(turn, queue, other, hospitals))
        late.start()  # nobody is there yet, so the run gives its place to the other one
        history = run_rounds(
            config, sites, aggregator, begin(config, "run", 0, aggregator), RunRecords()
        ).history
        late.join()
    assert turn.gave_way.is_set()
    assert sorted(history[0].updates) == ["east", "north"]
    assert history[0].left_out == {}
    assert sorted(history[-1].updates) == ["east", "north", "west"]


def _come(
    turn: InQueue, queue: RunQueue, other: RunEntry, hospitals: Mapping[str, Hospital]
) -> None:
    assert turn.gave_way.wait(30)
    assert queue.work_with(other, {"west": 1}, 1)[0]
    queue.at_once = 2
    for hospital in hospitals.values():
        hospital.start()
