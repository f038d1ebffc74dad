from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from client.node.message_loop import MessageLoop
from client.node.worker_process import Finished, WorkerProcess
from client.readiness.check_finding import Subject
from client.readiness.check_records import quarantine as check
from client.site.home import Home
from client.transport.quarantine import MOST_INTERRUPTIONS, Quarantine
from common.messages.signed_envelope import Envelope, seal, unseal, write_envelope
from common.messages.wire import Refusal, RefusalReason, SiteUpdate
from tests.client.answering import InlineWorker, Letters, question
from tests.client.letters import FolderFleet
from tests.client.node.test_worker_process import TRAIN, ask, finished, home, steps

__all__ = ["home"]  # a fixture


class MortalWorker(InlineWorker):
    """Dies over the seeds that it is told to."""

    deadly: frozenset[str] = frozenset()

    def give(self, request: Path, question: str) -> bool:
        if question not in self.deadly:
            return super().give(request, question)
        self.jobs.append(question)
        if self.died(question, "killed") >= 2:
            self._over.append(Finished(question=question, seconds=0.0, failed=True))
        return True


def opened(site: Letters, deadly: str) -> tuple[MessageLoop, MortalWorker]:
    found = site.open()
    worker = found.transport.worker
    worker.__class__ = MortalWorker
    assert isinstance(worker, MortalWorker)
    worker.deadly = frozenset({deadly})
    return found, worker


def answers(fleet: FolderFleet) -> list[object]:
    return [unseal(a.header, a.frames) for a in fleet.answers()]


def test_a_request_that_ended_the_worker_twice_is_set_aside_over_a_restart(tmp_path: Path) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    bad, good = question(), replace(question(), seed=1)
    fleet.ask(bad)
    tries = 0
    for _ in range(3):  # each a process of its own, one turn of work in each
        letters, worker = opened(site, seal(bad).digest.hex())
        letters._receive(fleet, 0.1)
        letters._decide(fleet)
        letters.work()
        tries += len(worker.jobs)
    assert tries == 2
    letters.work()
    letters._send(fleet)
    (refusal,) = answers(fleet)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.SET_ASIDE
    for number, request in enumerate((good, bad)):  # the same again is not tried again
        fleet.ask(request, number=number + 1)
        for _ in range(4):
            letters.turn(fleet, 0.1)
    kinds = sorted(type(answer).__name__ for answer in answers(fleet))
    assert kinds == ["Refusal", "Refusal", "SiteUpdate"]
    assert worker.jobs.count(seal(bad).digest.hex()) == 0
    assert letters.open == 0


@pytest.mark.processes
def test_it_is_named_with_a_remedy_that_works(tmp_path: Path) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    fleet.ask(question())
    letters, _ = opened(site, seal(question()).digest.hex())
    letters._receive(fleet, 0.1)
    letters._decide(fleet)
    for _ in range(4):
        letters.work()
    letters._send(fleet)
    place = Home(tmp_path / "home")
    (sentence,) = letters.set_aside()
    assert sentence == "train of run run, round 1: ended the worker 2 times (killed)"
    (finding,) = check(Subject(home=place, config=None, coordinator=None))
    assert (finding.state, finding.detail) == ("wrong", sentence)
    assert [event for event, _ in site.told if event == "a request is set aside"]
    assert len(list(place.quarantine.glob("*.request"))) == 1
    remedy = finding.fix.partition("tried again: ")[2]
    subprocess.run(["/bin/sh", "-c", remedy], check=True)
    fleet.ask(question(), number=1)
    honest = site.open()
    for _ in range(4):
        honest.turn(fleet, 0.1)
    assert any(isinstance(answer, SiteUpdate) for answer in answers(fleet))


def test_a_daemon_that_is_killed_in_each_try_gives_a_request_up(tmp_path: Path) -> None:
    found = Quarantine(tmp_path / "quarantine")
    for _ in range(MOST_INTERRUPTIONS):
        assert not found.tries("a").is_over
        found.begin("a", "train of run r, round 1")
    assert found.tries("a").is_over
    for _ in range(10):  # told to stop, each time
        found.begin("b", "x")
        found.undo("b")
    found.begin("c", "x")
    found.end("c")
    assert list(found.set_aside()) == [tmp_path / "quarantine" / "a.json"]


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.transport.quarantine._MOST_COUNTED", 10)
    found = Quarantine(tmp_path / "quarantine")
    for number in range(20):
        found.begin(f"{number}", "x")
        (tmp_path / "request").write_bytes(bytes(number))
        found.keep(f"{number}", tmp_path / "request")
    assert len(list((tmp_path / "quarantine").glob("*.request"))) == 5
    assert len(list((tmp_path / "quarantine").glob("*.json"))) == 10


def test_a_message_over_which_the_daemon_itself_dies_is_not_opened_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    fleet.ask(question())
    letters = site.open()
    letters._receive(fleet, 0.1)
    (delivery,) = letters.transport.inbox.waiting()
    for _ in range(MOST_INTERRUPTIONS):  # what a killed daemon leaves
        letters.transport.quarantine.begin(delivery.id, "a request that was being opened")
    monkeypatch.setattr("client.node.message_loop.question_of", lambda _header: 1 / 0)
    for _ in range(2):
        site.open().turn(fleet, 0.1)
    (refusal,) = answers(fleet)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is RefusalReason.SET_ASIDE
    assert not list((tmp_path / "home" / "inbox").iterdir())


@pytest.mark.slow
def test_a_worker_that_stands_still_is_ended_and_a_long_training_is_not(home: Home) -> None:
    worker = WorkerProcess(home.folder, subprocess.DEVNULL, standstill_seconds=6.0)
    deaths: list[str] = []
    worker.died = lambda _question, why: len(deaths.append(why) or deaths)  # type: ignore[func-returns-value]
    try:
        ask(worker, home, replace(TRAIN, config=steps(2_000_000)), "long")
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            assert worker.look() is None
            time.sleep(0.05)
        assert worker.given == "long"
        assert worker.restarts == 0
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        ends = time.monotonic() + 60
        while worker.given is not None and time.monotonic() < ends:
            assert worker.look() is None
            time.sleep(0.05)
        assert deaths == ["it stood still"]
    finally:
        worker.stop()


@pytest.mark.slow
def test_tensors_that_cannot_be_read_end_no_worker(home: Home) -> None:
    worker = WorkerProcess(home.folder, subprocess.DEVNULL)
    try:
        envelope = seal(TRAIN)
        broken = Envelope(header=envelope.header, frames=(b"\x00" * 40,))
        ask(worker, home, TRAIN, "good")
        assert not finished(worker).failed
        pid = worker.pid
        path = home.folder / "broken.request"
        write_envelope(path, broken)
        assert worker.give(path, "broken")
        over = finished(worker)
        assert "cannot be read" in over.unreadable
        assert worker.pid == pid
    finally:
        worker.stop()
