"""SIGKILL for each process in each phase: the run ends as if nothing had been, or pays twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.config.run_config import load_config
from common.platform.hash_chain import lines
from tests.end_to_end.aftermath import bits, sound
from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.federation import Federation, RunAt, SiteAt, federation
from tests.end_to_end.processes import kill_if_there, until
from tests.end_to_end.simulation import simulated

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
#: A network that takes a second to train, and an update that takes a moment to send.
# Three restarts in one round, each of which loads torch anew, take minutes on a busy machine.
SIZE = Size(hidden=(300, 300), steps=40, minutes=4.0)
LONG = 240.0
#: Flower gives a run up after a minute.
PAUSE_SECONDS = 66.0
#: "each": every process by itself, too, which takes four minutes more.
PAUSES = os.environ.get("PAUSES", "")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    path = tmp_path_factory.mktemp("kills")
    with federation(path, write_tables(path / "data", NAMES)) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(two: Federation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the weights that four rounds end in where nothing fails: those of a simulation."""
    path = tmp_path_factory.mktemp("plain")
    config = load_config(table_config(path, "undisturbed", rounds=4, size=SIZE))
    return bits(simulated(config, two.sites, path / "cache"))


@pytest.fixture
def order(two: Federation, tmp_path: Path) -> Callable[..., RunAt]:
    def start(name: str, rounds: int = 4, size: Size = SIZE, **more: str) -> RunAt:
        two.start()
        path = table_config(tmp_path, name, rounds=rounds, more=more, size=size)
        return two.coordinator.run(path)

    return start


def in_the_worker(site: SiteAt) -> bool:
    return site.status.get("phase") == "train"


class Charged:
    """Whether a site's ledger was charged since the last time that it had been."""

    def __init__(self, site: SiteAt) -> None:
        self._site, self._before = site, site.charges

    def __call__(self) -> bool:
        before, self._before = self._before, self._site.charges
        return self._before > before


def is_sending(site: SiteAt) -> bool:
    """Whether an answer is on its way: made, told of in the disclosures, not all there."""
    return any(site.home.inbox.glob("*/reply.json"))


def test_a_daemon_killed_idle_training_charging_and_uploading(
    two: Federation, order: Callable[..., RunAt]
) -> None:
    east = two.sites["east"]
    east.program.kill()
    run = order("daemon", privacy=PRIVATE)  # starts it again
    phases: dict[str, Callable[[], bool]] = {
        "training": lambda: in_the_worker(east),
        "charging": Charged(east),
        "uploading": lambda: is_sending(east),
    }
    for phase, look in phases.items():
        until(look, phase, pause=0.001)
        east.program.kill()
        east.start()
    run.end(LONG)
    state = sound(two, run, 4)
    assert [sorted(r.updates) for r in state.history] == [list(NAMES)] * 4


def test_a_worker_killed_idle_training_and_charging(
    two: Federation, order: Callable[..., RunAt]
) -> None:
    east = two.sites["east"]
    two.start()
    assert kill_if_there(until(lambda: east.worker, "a worker"))
    run = order("worker", privacy=PRIVATE)
    phases: dict[str, Callable[[], bool]] = {
        "training": lambda: in_the_worker(east),
        "charging": Charged(east),
    }
    for phase, look in phases.items():
        until(look, phase, pause=0.001)
        assert kill_if_there(east.worker)
        number = run.board["round"]
        until(lambda n=number: run.board["round"] > n or run.state == "done", "the next round")
    run.end(LONG)
    state = sound(two, run, 4)
    assert [sorted(r.updates) for r in state.history] == [list(NAMES)] * 4
    assert east.status["worker"]["restarts"] >= 3


def test_a_run_process_killed_training_aggregating_and_saving(
    two: Federation, order: Callable[..., RunAt], undisturbed: str
) -> None:
    run = order("process")
    for phase, number in (("training", 1), ("aggregating", 2), ("saving", 3)):
        run.reach(phase, number)
        assert kill_if_there(run.pid)
        until(lambda: not run.board or run.board["phase"] == "starting", "it begins anew")
    run.end(LONG)
    assert bits(sound(two, run, 4)) == undisturbed
    assert two.coordinator.program.runs


def test_a_service_killed_idle_training_uploading_aggregating_and_saving(
    two: Federation, order: Callable[..., RunAt], undisturbed: str
) -> None:
    two.coordinator.program.kill()
    two.coordinator.start()
    run = order("service")

    def uploading() -> bool:
        return any(s["state"] == "sending" for s in run.board.get("sites", {}).values())

    for phase, number in (("training", 1), ("uploading", 1), ("aggregating", 2), ("saving", 3)):
        if phase == "uploading":
            until(uploading, phase, pause=0.001)
        else:
            run.reach(phase, number)
        two.coordinator.program.kill()
        two.coordinator.start()
        assert run.state in {"waiting", "running"}  # it goes on by itself
    run.end(LONG)
    assert bits(sound(two, run, 4)) == undisturbed
    resumed = [x["after_round"] for x in lines(run.place.journal) if x["event"] == "resumed"]
    assert set(resumed) & {2, 3}  # nothing that was saved is trained again


@pytest.mark.parametrize("who", ["all", *(["run", "service", "site"] if PAUSES == "each" else [])])
def test_a_pause_is_no_failure(
    two: Federation, order: Callable[..., RunAt], undisturbed: str, who: str
) -> None:
    """A machine is suspended, or too busy, for longer than Flower or a round waits for anybody."""
    run = order(f"pause-{who}", size=replace(SIZE, minutes=PAUSE_SECONDS / 90))
    run.reach("training", 1)
    east = two.sites["east"].program
    processes = {"run": run.pid, "service": two.coordinator.program.pid, "site": east.pid}
    stopped = [pid for name, pid in processes.items() if pid and who in {name, "all"}]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_SECONDS)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert run.end(LONG) == "done", run.message
    assert bits(run.result()) == undisturbed
