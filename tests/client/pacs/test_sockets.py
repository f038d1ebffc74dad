"""What is mended of pynetdicom: no answer is lost between its two threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from client.pacs import cfind
from client.pacs.connection.association import associate
from client.pacs.connection.sockets import Checkpoint
from client.pacs.image_source import PacsQuery
from common.platform.errors import Unreachable
from tests.client.pacs.cohorts import fill
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes


class Reactor(threading.Thread):
    """Passes its checkpoint again and again, as an association's thread does."""

    def __init__(self, work_seconds: float) -> None:
        super().__init__(daemon=True)
        self._work_seconds = work_seconds
        self._is_paused = False
        self.passed = 0
        self.working = False
        self.over = False
        self.checkpoint = Checkpoint(self)  # type: ignore[arg-type] - a stand-in of its thread

    def run(self) -> None:
        while not self.over:
            self.checkpoint.wait()
            self.working = True
            self.passed += 1
            time.sleep(self._work_seconds)
            self.working = False


def ended(reactor: Reactor) -> None:
    reactor.over = True
    reactor.checkpoint.set()
    reactor.join(5)


def test_a_thread_that_was_let_go_and_stopped_at_once_does_not_pass() -> None:
    reactor = Reactor(0.0)
    reactor.start()
    reactor.checkpoint.clear()
    passed = reactor.passed
    for _ in range(50):
        reactor.checkpoint.set()
        reactor.checkpoint.clear()  # a plain Event would let it pass now
        before = reactor.passed
        time.sleep(0.002)
        assert reactor.passed == before
    assert reactor.passed <= passed + 50
    ended(reactor)


def test_the_thread_is_waited_for_while_it_works() -> None:
    reactor = Reactor(0.03)
    reactor.start()
    for _ in range(10):
        reactor.checkpoint.clear()
        assert not reactor.working
        reactor.checkpoint.set()
        time.sleep(0.005)
    ended(reactor)


def test_a_thread_that_ended_is_not_waited_for() -> None:
    reactor = Reactor(0.0)
    reactor.start()
    ended(reactor)
    reactor.checkpoint.clear()
    assert reactor._is_paused


def test_every_query_on_an_association_has_its_answer(pacs: Pacs, tmp_path: Path) -> None:
    fill(pacs, tmp_path / "made", ["T0"], slices=1)
    config = reaching(pacs, "c-get")
    question = PacsQuery(key="PatientID", value="T0", modality="", first_day="", last_day="")
    finder = cfind.Finder(config)
    (series,) = finder.find(question)
    finder.close()
    with associate(config, [cfind.FIND]) as association:
        for _ in range(200):
            assert len(cfind.listed(association, config, series)) == 1


def test_all_questions_go_over_one_association_and_a_killed_pacs_is_asked_on_another(
    pacs: Pacs, tmp_path: Path
) -> None:
    fill(pacs, tmp_path / "made", ["T1"], slices=1)
    question = PacsQuery(key="PatientID", value="T1", modality="", first_day="", last_day="")
    opened = pacs.log.read_text().count("Association Received")
    finder = cfind.Finder(reaching(pacs, "c-get"))
    for _ in range(20):
        assert len(list(finder.find(question))) == 1
    assert pacs.log.read_text().count("Association Received") - opened == 1
    pacs.kill()
    with pytest.raises(Unreachable):
        finder.find(question)
    pacs.start_again()
    assert len(list(finder.find(question))) == 1
    finder.close()
