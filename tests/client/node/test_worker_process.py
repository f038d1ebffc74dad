from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from client.node.worker_process import Finished, WorkerProcess
from client.site.home import Home
from client.site.policy_section import PolicyRules
from client.site.site_config import SiteConfig, write_site_config
from client.transport.outbox import Outbox
from client.transport.quarantine import MOST_DEATHS
from common.config.run_config import RunConfig, parse_config
from common.messages.signed_envelope import seal, unseal, write_envelope
from common.messages.signing_key import new_private_key, private_text, public_text, verify
from common.messages.wire import (
    Proposal,
    Refusal,
    RefusalReason,
    SiteUpdate,
    Standing,
    TrainRequest,
)
from common.models.run_network import initial_weights
from common.platform.awake_clock import AwakeClock
from tests.client.terminals import same_split

pytestmark = pytest.mark.slow

CONFIG = parse_config("""
name: worker
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 2, batch_patients: all, optimizer: sgd, learning_rate: 0.1}
privacy: {unit: patient, epsilon: 2.0, default_patients: 20}
""").in_force()
TRAIN = TrainRequest(run="run", round=1, seed=0, config=CONFIG, weights=initial_weights(CONFIG, 0))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    data = tmp_path / "data"
    data.mkdir()
    rows = "".join(f"P{n},{40 + n},{n % 2}\n" for n in range(40))
    (data / "labels.csv").write_text(f"PatientID,age,ill\n{rows}", encoding="utf-8")
    found = Home(tmp_path / "home")
    found.folder.mkdir()
    found.key.write_text(private_text(new_private_key()))
    write(found, data)
    same_split(found)
    return found


def write(home: Home, data: Path, memory_gib: float | None = None) -> None:
    config = SiteConfig(name="north", data=data, memory_gib=memory_gib, policy=PolicyRules())
    write_site_config(home.site_yaml, config)


@pytest.fixture
def worker(home: Home) -> Iterator[WorkerProcess]:
    found = WorkerProcess(home.folder, subprocess.DEVNULL)
    yield found
    found.stop()


def finished(worker: WorkerProcess, seconds: float = 60.0) -> Finished:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        over = worker.look()
        if over is not None:
            return over
        worker.start()
        time.sleep(0.02)
    pytest.fail("the job was not finished in time")


def ask(worker: WorkerProcess, home: Home, request: TrainRequest | Proposal, name: str) -> None:
    path = home.folder / f"{name}.request"
    write_envelope(path, seal(request))
    ends = time.monotonic() + 60
    while not worker.give(path, name) and time.monotonic() < ends:
        worker.start()
        assert worker.look() is None
        time.sleep(0.02)
    assert worker.given == name


def test_it_answers_job_after_job_without_starting_anew(worker: WorkerProcess, home: Home) -> None:
    ask(worker, home, Proposal(run="run", round=0, seed=0, config=CONFIG), "a")
    assert not finished(worker).failed
    pid = worker.pid
    ask(worker, home, TRAIN, "b")
    assert not finished(worker).failed
    assert worker.pid == pid
    answers = [Outbox(home.outbox).find(name) for name in ("a", "b")]
    kinds = []
    for answer in answers:
        assert answer is not None
        public = public_text_of(home)
        assert verify(public, answer.digest, answer.signature)
        kinds.append(type(unseal(answer.header, answer.frames)))
    assert kinds == [Standing, SiteUpdate]


def public_text_of(home: Home) -> str:
    from common.messages.signing_key import load_private

    return public_text(load_private(home.key))


def test_a_worker_that_is_killed_over_a_job_starts_again_and_does_it(
    worker: WorkerProcess, home: Home
) -> None:
    told: list[str] = []
    worker.restarted = lambda: told.append("restarted")
    slow = replace(TRAIN, config=steps(200_000))
    ask(worker, home, slow, "slow")
    time.sleep(0.5)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    ends = time.monotonic() + 30
    while worker.given is not None and time.monotonic() < ends:
        assert worker.look() is None
        time.sleep(0.02)
    assert worker.restarts == len(told) == 1
    ask(worker, home, TRAIN, "quick")
    assert not finished(worker).failed


def test_a_worker_that_is_retired_ends_its_job_first(worker: WorkerProcess, home: Home) -> None:
    ask(worker, home, replace(TRAIN, config=steps(300)), "long")
    first = worker.pid
    worker.retire()
    assert not worker.give(home.folder / "long.request", "other")
    assert not finished(worker).failed
    ask_again = time.monotonic() + 30
    while worker.pid in {first, None} and time.monotonic() < ask_again:
        worker.look()
        worker.start()
    ask(worker, home, TRAIN, "next")
    assert not finished(worker).failed
    assert worker.pid != first
    assert worker.restarts == 0


def test_a_job_that_kills_every_worker_is_given_up(worker: WorkerProcess, home: Home) -> None:
    slow = replace(TRAIN, config=steps(200_000))
    over = None
    for _ in range(MOST_DEATHS):
        ends = time.monotonic() + 60
        while worker.given is None and time.monotonic() < ends:
            worker.start()
            if worker.pid is not None:
                ask(worker, home, slow, "slow")
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while worker.given is not None and over is None:
            over = worker.look()
            time.sleep(0.02)
    assert over is not None
    assert over.failed


def test_what_the_memory_limit_forbids_is_a_refusal_that_says_nothing(
    worker: WorkerProcess, home: Home
) -> None:
    write(home, home.folder.parent / "data", memory_gib=2.0)
    huge = CONFIG.model_copy(
        update={"model": CONFIG.model.model_copy(update={"hidden": (30_000, 30_000)})}
    )
    ask(worker, home, Proposal(run="run", round=0, seed=0, config=huge), "huge")
    assert not finished(worker).failed
    answer = Outbox(home.outbox).find("huge")
    assert answer is not None
    refusal = unseal(answer.header, answer.frames)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.FAILED


def steps(count: int) -> RunConfig:
    training = CONFIG.training.model_copy(update={"local_steps": count})
    return CONFIG.model_copy(update={"training": training})


def test_an_idle_worker_ends_and_the_next_job_starts_another(
    worker: WorkerProcess, home: Home
) -> None:
    ask(worker, home, Proposal(run="run", round=0, seed=0, config=CONFIG), "a")
    worker.idle_seconds = 0.0
    worker.rest()
    assert worker.pid is not None  # it has a job, however long it takes
    assert not finished(worker).failed
    worker.idle_seconds = 3600.0
    worker.rest()
    assert worker.pid is not None
    worker.idle_seconds = 0.0
    worker.rest()
    assert (worker.pid, worker.rests, worker.restarts) == (None, True, 0)
    assert not worker.give(home.folder / "a.request", "a")
    ask(worker, home, TRAIN, "b")
    assert not worker.rests
    assert not finished(worker).failed


@pytest.mark.slow
def test_a_worker_that_stood_still_with_its_machine_is_not_ended(
    worker: WorkerProcess, home: Home
) -> None:
    now = [0.0]
    worker._awake = AwakeClock(60.0, lambda: now[0])
    ask(worker, home, replace(TRAIN, config=steps(200_000)), "a")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    now[0] += 24 * 3600.0  # the next look is that of a daemon that was stopped, too
    assert worker.look() is None
    assert (worker.given, worker.restarts) == ("a", 0)
    for _ in range(40):  # and then the worker alone stands still
        now[0] += 59.0
        assert worker.look() is None
    assert worker.restarts == 1
