"""Full disks, and records that somebody changed: nothing leaves, and whoever looks is told."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from common.config.run_config import load_config
from tests.end_to_end.aftermath import bits, sound
from tests.end_to_end.cohorts import PRIVATE, Size, table_config, write_tables
from tests.end_to_end.federation import Federation, RunAt, federation
from tests.end_to_end.processes import until
from tests.end_to_end.simulation import simulated

pytestmark = pytest.mark.slow

NAMES = ("east", "west")
LONG = 120.0
SIZE = Size(hidden=(300, 300), steps=10)
#: No round is validated: what is damaged here is what training leaves.
LAST = {"selection": "{rule: last}"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    path = tmp_path_factory.mktemp("damage")
    with federation(path, write_tables(path / "data", NAMES)) as found:
        yield found


@pytest.fixture
def order(two: Federation, tmp_path: Path) -> Callable[..., RunAt]:
    def start(name: str, rounds: int = 3, **more: str) -> RunAt:
        two.start()
        path = table_config(tmp_path, name, rounds=rounds, size=SIZE, more={**LAST, **more})
        return two.coordinator.run(path)

    return start


@pytest.fixture(scope="module")
def undisturbed(two: Federation, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the weights that three rounds end in where nothing fails: those of a simulation."""
    path = tmp_path_factory.mktemp("plain")
    config = load_config(table_config(path, "undisturbed", rounds=3, size=SIZE, more=LAST))
    return bits(simulated(config, two.sites, path / "cache"))


def stopped_after(number: int, run: RunAt, two: Federation) -> None:
    """Stop a run that would be done by the time that the command is typed."""
    run.saved(number)
    east = two.sites["east"].program.pid
    os.kill(east, signal.SIGSTOP)  # no round ends without it
    try:
        two.coordinator.type("stop", run.place.path.name)
    finally:
        os.kill(east, signal.SIGCONT)


# --- records that somebody changed ---------------------------------------------------------


def test_a_coordinator_goes_back_over_a_damaged_checkpoint_and_not_over_a_damaged_journal(
    two: Federation, order: Callable[..., RunAt], undisturbed: str
) -> None:
    run = order("damaged")
    stopped_after(2, run, two)
    last = run.place.state / f"round-{run.rounds():05d}.safetensors"
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)
    two.coordinator.resume(run)
    run.end(LONG)
    assert bits(sound(two, run, 3)) == undisturbed
    log = (two.coordinator.folder.log / f"run-{run.place.path.name}.log").read_text()
    assert f"{last} is damaged" in log

    run = order("forged")
    stopped_after(1, run, two)
    text = run.place.journal.read_text()
    run.place.journal.write_text(text.replace('"seed": 0', '"seed": 7', 1))
    two.coordinator.resume(run)
    assert run.end(LONG) == "failed"
    assert str(run.place.journal) in run.message
    assert two.coordinator.type("watch", run.place.path.name, status=5)


def test_a_site_whose_ledger_was_changed_releases_nothing_and_says_so(
    two: Federation, order: Callable[..., RunAt]
) -> None:
    west = two.sites["west"]
    order("charged", 1, privacy=PRIVATE).end(LONG)
    assert west.charges > 0
    kept = west.home.ledger.read_bytes()
    with closing(sqlite3.connect(west.home.ledger)) as ledger:
        ledger.executescript("DROP TRIGGER no_update; UPDATE charges SET round = 99;")
    try:
        run = order("tampered", 2, privacy=PRIVATE)
        assert run.end(LONG) == "failed"
        assert "west: " in run.message
        assert not [x for x in west.sent() if x.disclosure.run == run.place.path.name]
        assert "LedgerDamaged" in (west.home.log / "worker.log").read_text()
        assert "ledger" in west.type("doctor", status=1)
    finally:
        west.home.ledger.write_bytes(kept)


# --- full disks ----------------------------------------------------------------------------


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    """Mount a small file system over a folder, with what is in it; skip where that is not allowed.

    What was written there in the meantime is gone afterwards.
    """
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "wardround-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no test mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def fill(place: Path) -> Path:
    """Leave no room; returns the file that takes it."""
    path = place / "ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return path


def test_a_site_without_room_for_requests_says_so_and_answers_once_there_is(
    two: Federation, order: Callable[..., RunAt], undisturbed: str
) -> None:
    east = two.sites["east"]
    east.program.kill()
    with small_disk(east.home.inbox, "8m"):
        ballast = fill(east.home.inbox)
        run = order("full-inbox")
        until(lambda: "No space left" in east.daemon_log(), "east says so")
        assert east.program.runs
        ballast.unlink()
        run.end(LONG)
        assert bits(sound(two, run, 3)) == undisturbed
        east.program.kill()


def test_a_site_without_room_for_its_answer_is_charged_nothing_and_answers_once_there_is(
    two: Federation, order: Callable[..., RunAt]
) -> None:
    east = two.sites["east"]
    east.program.kill()
    with small_disk(east.home.outbox, "64k"):
        before = east.charges
        run = order("full-outbox", privacy=PRIVATE)
        told = east.home.log / "worker.log"
        until(lambda: told.exists() and "MB are free below" in told.read_text(), "it says so")
        board = lambda: run.board["sites"].get("east", {})  # noqa: E731
        until(lambda: "no room" in board().get("why", ""), "the run says so")
        assert east.charges == before
        assert not [x for x in east.sent() if x.disclosure.run == run.place.path.name]
    assert run.end(LONG) == "done", run.message  # nobody has typed anything
    sound(two, run, 3)


def test_a_run_whose_coordinator_has_a_full_disk_says_so_and_goes_on_by_itself(
    two: Federation, order: Callable[..., RunAt], undisturbed: str
) -> None:
    run = order("full")
    run.reach("training", 2)  # nothing is being written to the folder
    with small_disk(run.place.state, "64k"):
        fill(run.place.state)
        until(lambda: f"No space left on device: {run.place.state}" in run.message, "it says so")
        assert run.state == "waiting"
    run.end(LONG)
    assert bits(sound(two, run, 3)) == undisturbed
