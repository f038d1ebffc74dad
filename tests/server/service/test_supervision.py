from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.config.run_config import RunConfig, load_config
from common.platform.errors import ConfigurationError, ExitCode, LinkDown
from common.platform.file_lock import FileLock, Taken
from server.files.folder import Folder
from server.service import supervision
from server.service.run_book import Ordered, RunBook, RunEntry, RunState
from server.service.supervision import QUEUE, SERVICE, Supervisor
from server.transport import turn

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
STAND_IN = (sys.executable, "-m", "tests.server.run_stand_in")
ORDERED = Ordered(seed=7, sites=("north",), waits=True)
CONFIG = load_config(ROOT / "configs" / "simulations" / "demo.yaml")


@dataclass(frozen=True)
class Started:
    number: int
    token: str


@dataclass
class Starter:
    """What Flower would do: numbers and tokens, and which runs were ended."""

    begun: list[str] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    #: How often nothing can be written.
    full: int = 0

    def start_run(self, name: str) -> Started:
        self._write()
        self.begun.append(name)
        return Started(len(self.begun), f"token-{len(self.begun)}")

    def stop_run(self, number: int) -> None:
        self.ended.append(number)
        self._write()

    def _write(self) -> None:
        if self.full:
            self.full -= 1
            raise LinkDown("superlink.db cannot be written: database or disk is full.")


@dataclass
class Runs:
    folder: Folder
    starter: Starter
    supervisor: Supervisor

    def entry(self, name: str = "demo") -> RunEntry:
        return RunBook(self.folder).read(name)

    def tokens(self, name: str = "demo") -> list[str]:
        return (self.folder.run(name).path / "tokens").read_text().splitlines()

    async def over(self, name: str = "demo") -> RunEntry:
        async with asyncio.timeout(20):
            while self.entry(name).state in {"waiting", "running"}:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
        return self.entry(name)

    async def next_life(self, *, killed: bool = False) -> None:
        """End the supervisor and let another go on, as where the service starts again."""
        await self.supervisor.close()
        if killed:  # nobody notes how it ended
            RunBook(self.folder).write(self.entry().moved("running"))
        self.supervisor = Supervisor(self.folder, self.starter, stop_seconds=5, command=STAND_IN)
        self.supervisor.go_on()

    async def ready(self, name: str = "demo") -> None:
        async with asyncio.timeout(20):
            while not (self.folder.run(name).path / "ready").exists():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)


def that(description: str) -> RunConfig:
    return CONFIG.model_copy(update={"description": description, "name": "demo"})


@pytest.fixture
def go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Runs], Awaitable[None]]], None]:
    """Return what runs a story in an event loop, with a supervisor that is closed after it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(story: Callable[[Runs], Awaitable[None]], stop_seconds: float = 5) -> None:
        async def within() -> None:
            folder, starter = Folder(tmp_path), Starter()
            supervisor = Supervisor(folder, starter, stop_seconds=stop_seconds, command=STAND_IN)
            runs = Runs(folder, starter, supervisor)
            await story(runs)
            await runs.supervisor.close()
            assert sorted(starter.ended) == list(range(1, len(starter.begun) + 1))

        asyncio.run(within())

    return run


Go = Callable[..., None]


def open_files(pid: int) -> set[Path]:
    return {path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.processes
def test_a_run_that_ends_well_is_done(go: Go) -> None:
    async def story(runs: Runs) -> None:
        assert await runs.supervisor.order(that("done"), ORDERED) == "demo"
        assert (await runs.over()).state == "done"
        entry = runs.entry()
        assert (entry.exit_code, entry.seed, entry.sites, entry.waits) == (0, 7, ("north",), True)
        assert load_config(runs.folder.run("demo").config) == that("done").in_force()
        assert runs.tokens() == ["token-1 0"]
        with pytest.raises(ConfigurationError, match="is done"):
            await runs.supervisor.resume("demo")

    go(story)


def test_the_same_configuration_again_is_another_run(go: Go) -> None:
    async def story(runs: Runs) -> None:
        names = [await runs.supervisor.order(that("done"), Ordered(seed=seed)) for seed in range(3)]
        assert names == ["demo", "demo-2", "demo-3"]
        for name in names:
            assert (await runs.over(name)).state == "done"

    go(story)


def test_a_run_that_fails_says_why_and_can_be_resumed(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("fail"), Ordered())
        entry = await runs.over()
        assert (entry.state, entry.exit_code) == ("failed", 1)
        assert entry.message == "quorum not reached in round 3"
        await runs.supervisor.resume("demo")
        await runs.over()
        assert runs.tokens() == ["token-1 0", "token-2 0"]

    go(story)


def test_a_defect_of_ours_ends_in_the_log_and_its_last_line_in_the_message(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("crash"), Ordered())
        entry = await runs.over()
        assert entry.state == "failed"
        assert "a defect of ours" in entry.message
        assert "run-demo.log" in entry.message

    go(story)


def test_a_killed_run_is_started_again_with_a_new_token(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("die-3"), Ordered())
        assert (await runs.over()).state == "done"
        assert runs.tokens() == [f"token-{number} 0" for number in (1, 2, 3, 4)]

    go(story)


def test_a_run_that_is_killed_again_and_again_is_given_up(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("die-99"), Ordered())
        entry = await runs.over()
        assert entry.state == "failed"
        assert len(runs.tokens()) == 4
        assert "SIGKILL" in entry.message
        assert "wardround-coordinator resume demo" in entry.message

    go(story)


def test_a_run_that_gets_on_is_not_given_up_however_often_it_is_killed(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("save-6"), Ordered())
        assert (await runs.over()).state == "done"
        assert len(runs.tokens()) == 7

    go(story)


@pytest.mark.parametrize("ends", ["end-2", "lost-5"])
def test_a_run_that_ended_for_no_fault_of_its_own_is_started_again(
    go: Go, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """The machine goes down and tells every process, or the service had lost the run."""
    monkeypatch.setattr(supervision, "_SHORTEST_PAUSE", 0.01)

    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that(ends), Ordered())
        entry = await runs.over()
        assert (entry.state, entry.exit_code) == ("done", 0)

    go(story)


def test_a_run_whose_service_has_a_full_disk_begins_when_there_is_room(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_SHORTEST_PAUSE", 0.01)

    async def story(runs: Runs) -> None:
        runs.starter.full = 3
        await runs.supervisor.order(that("hang"), Ordered())
        await runs.ready()
        assert runs.starter.begun == ["demo"]
        runs.starter.full = 1
        await runs.supervisor.stop("demo")  # what it exchanged cannot be deleted now
        assert runs.entry().state == "stopped"

    go(story)


def test_a_run_between_two_tries_is_stopped_at_once(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("lost-9"), Ordered())
        async with asyncio.timeout(20):
            while "tried again" not in runs.entry().message:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
        await runs.supervisor.stop("demo")
        assert runs.entry().state == "stopped"

    go(story)


def test_a_run_is_stopped_and_resumed(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("hang"), Ordered())
        await runs.ready()
        assert runs.entry().state == "running"
        with pytest.raises(ConfigurationError, match="is under way"):
            await runs.supervisor.resume("demo")
        await runs.supervisor.stop("demo")
        entry = runs.entry()
        assert (entry.state, entry.exit_code) == ("stopped", 130)
        assert "wardround-coordinator resume demo" in entry.message
        with pytest.raises(ConfigurationError, match="is not under way; it is stopped"):
            await runs.supervisor.stop("demo")
        await runs.supervisor.resume("demo")
        assert runs.entry().state in {"waiting", "running"}

    go(story)


def test_a_run_that_does_not_stop_is_killed_and_not_started_again(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("deaf"), Ordered())
        await runs.ready()
        start = time.monotonic()
        await runs.supervisor.stop("demo")
        assert 0.3 <= time.monotonic() - start < 5
        assert runs.entry().state == "stopped"
        assert len(runs.tokens()) == 1

    go(story, stop_seconds=0.3)


def test_runs_wait_where_the_service_stops_and_go_on_with_its_next_life(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("hang"), Ordered())
        await runs.supervisor.order(that("hang"), Ordered(seed=1))
        await runs.ready("demo")
        await runs.ready("demo-2")
        await runs.supervisor.close()
        for name in ("demo", "demo-2"):
            entry = runs.entry(name)
            assert entry.state == "waiting"
            assert "wardround-coordinator start" in entry.message
        with pytest.raises(ConfigurationError, match="is stopping"):
            await runs.supervisor.order(that("done"), Ordered())
        for _ in range(5):  # nobody killed anything: however often it is restarted
            await runs.next_life()
        assert runs.entry().kills == 0

    go(story)


def test_a_run_stopped_before_its_process_is_there_stops_all_the_same(go: Go) -> None:
    async def story(runs: Runs) -> None:
        for name in ("demo", "demo-2"):
            await runs.supervisor.order(that("hang"), Ordered())
            if name == "demo-2":
                while not runs.starter.begun:  # noqa: ASYNC110 - another thread's list
                    await asyncio.sleep(0)
            start = time.monotonic()
            await runs.supervisor.stop(name)
            assert time.monotonic() - start < 4  # it is not killed in the end
            assert runs.entry(name).state == "stopped"

    go(story)


def test_runs_beyond_the_bound_wait_their_turn_and_can_be_stopped_meanwhile(go: Go) -> None:
    async def story(runs: Runs) -> None:
        runs.supervisor.queue.at_once = 1
        await runs.supervisor.order(that("hang"), Ordered())
        await runs.ready("demo")
        for priority in (0, 1):
            await runs.supervisor.order(that("hang"), Ordered(priority=priority))
        async with asyncio.timeout(20):
            while "at work demo; 1 before it" not in runs.entry("demo-2").message:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
        await runs.supervisor.stop("demo-2")
        assert runs.entry("demo-2").state == "stopped"
        await runs.supervisor.stop("demo")
        await runs.ready("demo-3")
        assert runs.starter.begun == ["demo", "demo-3"]

    go(story)


def test_two_processes_never_work_in_one_runs_folder(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("hang"), Ordered())
        await runs.ready()
        process = runs.supervisor._running["demo"].process
        assert process is not None
        # Held by the process itself, so that it still is when the service is killed.
        assert runs.folder.run("demo").lock in open_files(process.pid)
        other = Supervisor(runs.folder, Starter(), stop_seconds=1, command=STAND_IN)
        other.go_on()  # what a restarted service does
        async with asyncio.timeout(20):
            while "an earlier process" not in runs.entry().message:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
        assert len(runs.tokens()) == 1
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            while len(runs.tokens()) < 2:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
        await other.close()

    go(story)


def test_a_run_that_waits_for_an_earlier_process_can_be_stopped(go: Go) -> None:
    async def story(runs: Runs) -> None:
        entry = RunBook(runs.folder).order(that("done"), Ordered())
        with FileLock(runs.folder.run(entry.run).lock):
            runs.supervisor.go_on()
            await runs.supervisor.stop("demo")
        assert runs.entry().state == "stopped"
        assert runs.starter.begun == []

    go(story)


def test_the_lock_of_a_run_outlives_its_service(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    lock.close()  # the service is gone, its child is not
    with pytest.raises(Taken):
        FileLock(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    FileLock(path).close()


def test_only_what_was_under_way_goes_on_with_the_service(go: Go) -> None:
    """What a person stopped stays stopped, also where the service ended before it had."""

    async def story(runs: Runs) -> None:
        book = RunBook(runs.folder)
        left: list[tuple[RunState, bool]] = [
            ("waiting", False),
            ("running", False),
            ("running", True),
            ("interrupted", False),
            ("stopped", True),
            ("failed", False),
            ("done", False),
        ]
        for state, stopping in left:
            entry = book.order(that("hang"), Ordered()).moved(state)
            book.write(entry.model_copy(update={"stopping": stopping}))
        broken = book.order(that("hang"), Ordered())
        runs.folder.run(broken.run).run.write_text("{")
        await runs.next_life()
        await runs.ready("demo")
        await runs.ready("demo-2")
        assert sorted(runs.starter.begun) == ["demo", "demo-2"]
        states = [runs.entry(f"demo-{n}").state for n in range(3, 8)]
        assert states == ["stopped", "interrupted", "stopped", "failed", "done"]
        assert "wardround-coordinator resume demo-3" in runs.entry("demo-3").message
        assert [runs.entry(name).kills for name in ("demo", "demo-2")] == [0, 1]

    go(story)


def test_a_run_with_which_the_service_is_killed_again_and_again_is_given_up(go: Go) -> None:
    async def story(runs: Runs) -> None:
        await runs.supervisor.order(that("hang"), Ordered())
        for life in range(1, 4):
            await runs.next_life(killed=True)
            assert runs.entry().kills == life
        await runs.next_life(killed=True)
        assert runs.entry().state == "failed"
        assert "wardround-coordinator resume demo" in runs.entry().message
        await runs.supervisor.resume("demo")  # a person may mend it, and then it has three again
        await runs.ready()
        assert runs.entry().kills == 0

    go(story)


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    book = RunBook(Folder(tmp_path))
    for _ in range(3):
        book.order(that("done"), Ordered())
    with pytest.raises(ConfigurationError, match="no run 'other'; there are: demo, demo-2"):
        book.read("other")
    with pytest.raises(ConfigurationError, match="no name of a run"):
        book.read("../demo")


@pytest.mark.processes
@pytest.mark.parametrize("program", ["run_process", "ask_process"])
def test_a_run_whose_service_is_gone_by_then_does_not_begin(tmp_path: Path, program: str) -> None:
    """The service may be killed before the process can ask to be ended with it."""
    arguments = "[sys.argv[1], 'demo', '9', '0']"
    code = f"import sys; from server.processes.{program} import run; run({arguments})"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, SERVICE: "1"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == ExitCode.INTERRUPTED


async def says(runs: Runs, name: str, words: str) -> None:
    async with asyncio.timeout(20):
        while words not in runs.entry(name).message:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)


def test_a_run_that_waits_for_sites_gives_its_place_to_the_next_and_takes_another(go: Go) -> None:
    async def story(runs: Runs) -> None:
        runs.supervisor.queue.at_once = 1
        await runs.supervisor.order(that("away"), ORDERED)
        await runs.ready()
        await runs.supervisor.order(that("done"), ORDERED)
        assert (await runs.over("demo-2")).state == "done"
        await runs.supervisor.order(that("hang"), ORDERED)
        await runs.ready("demo-3")
        assert runs.entry().state == "running"
        (runs.folder.run("demo").path / "come").touch()
        await says(runs, "demo", "at work demo-3; 0 before it")
        assert runs.entry().state == "waiting"
        assert len(runs.tokens()) == 1  # the same process
        await runs.supervisor.stop("demo-3")
        assert (await runs.over()).state == "done"

    assert turn.QUEUE == QUEUE
    go(story)


def test_a_run_that_waits_for_its_turn_can_be_stopped(go: Go) -> None:
    async def story(runs: Runs) -> None:
        runs.supervisor.queue.at_once = 1
        await runs.supervisor.order(that("away"), ORDERED)
        await runs.ready()
        await runs.supervisor.order(that("hang"), ORDERED)
        await runs.ready("demo-2")
        (runs.folder.run("demo").path / "come").touch()
        await says(runs, "demo", "at work demo-2")
        await runs.supervisor.stop("demo")
        assert runs.entry().state == "stopped"
        await runs.supervisor.order(that("done"), ORDERED)
        await says(runs, "demo-3", "at work demo-2; 0 before it")
        await runs.supervisor.stop("demo-2")
        assert (await runs.over("demo-3")).state == "done"

    go(story)


def test_a_run_that_is_tried_again_and_again_gives_its_place_to_the_next(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "_SHORTEST_PAUSE", 0.1)

    async def story(runs: Runs) -> None:
        runs.supervisor.queue.at_once = 1
        await runs.supervisor.order(that("lost-999"), ORDERED)
        await runs.supervisor.order(that("done"), ORDERED)
        assert (await runs.over("demo-2")).state == "done"
        assert runs.entry().state in {"waiting", "running"}
        await runs.supervisor.stop("demo")

    go(story)
