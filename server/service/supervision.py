"""Supervision of runs as processes: started, watched, restarted, stopped.

exit status 0            done
an error's status        failed, with the error as its message
TRY_AGAIN                started again after a while: the service had lost it, the disk is full,
                         or too few sites answered in time
killed by a signal       started again from its last saved round, at most three times from one
asked to stop            stopped; it has `stop_seconds` to save, then it is killed
the service stops        waiting; it goes on when the service starts again
the service is killed    the same, and counted among the kills

Each process asks over a socket whether it may work (server/service/run_queue.py); one that was
killed or is tried again keeps its place, unless it was tried again before without a round saved.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol

from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError, ExitCode, LinkDown, RunFailed, WardroundError
from common.platform.file_lock import FileLock, Taken
from common.platform.logs import log
from common.platform.program_start import START
from server.files.folder import Folder
from server.files.status_reader import view_of
from server.service.run_book import (
    EARLIER_PROCESS,
    WITH_THE_SERVICE,
    Ordered,
    RunBook,
    RunEntry,
    killed_too_often,
    stopped_by_hand,
)
from server.service.run_queue import RunQueue

#: The program of a run; the folder and the run's name follow it. -P: a folder that happens to
#: be named server where the service was started must not run in our place.
RUN_COMMAND = (sys.executable, *START, "server.processes.run_process")
ASK_COMMAND = (sys.executable, *START, "server.processes.ask_process")
#: The environment's name for the token of the run's task.
TASK_TOKEN = "WARDROUND_TASK_TOKEN"  # noqa: S105 - a name, not a token
#: The environment's name for the number of this process, with which a run's ends.
SERVICE = "WARDROUND_SERVICE"
#: The environment's name for the number of the socket on which a run's process asks for its turn.
QUEUE = "WARDROUND_QUEUE"
_RESTARTS = 3
#: Between two looks whether an earlier process of a run has ended, or a run before it.
_LOOK_SECONDS = 0.2
#: Before a run is started again whose end was not its own fault; doubled each time.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LONGEST_MESSAGE = 2000


class StartedRun(Protocol):
    """What Flower knows a run's process by."""

    @property
    def number(self) -> int:
        """Flower's own number of the run."""

    @property
    def token(self) -> str:
        """What the process shows to be the run's."""


class RunStarter(Protocol):
    """Flower's half of a run's beginning and end."""

    def start_run(self, name: str) -> StartedRun:
        """Create a run of Flower's."""

    def stop_run(self, number: int) -> None:
        """End it and delete what it exchanged."""


_Asked = Literal["stopped", "waiting"]


@dataclass
class _Running:
    task: asyncio.Task[None] | None = None
    process: asyncio.subprocess.Process | None = None
    #: How the run ends when it was asked to, and why.
    asked: tuple[_Asked, str] | None = None
    _is_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, state: _Asked, message: str) -> None:
        """Ask it to end, also where it is between two processes."""
        self.asked = (state, message)
        self._is_asked.set()
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the moment in which it is asked to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_asked.wait()


class Supervisor:
    """The run processes of this service; every method is called in its event loop."""

    def __init__(
        self,
        folder: Folder,
        starter: RunStarter,
        *,
        stop_seconds: float,
        runs_at_once: int | None = None,
        command: Sequence[str] = RUN_COMMAND,
    ) -> None:
        self._folder = folder
        self._starter = starter
        self._command = tuple(command)
        self.stop_seconds = stop_seconds
        self.queue = RunQueue(runs_at_once)
        self._book = RunBook(folder)
        self._running: dict[str, _Running] = {}
        self._closing = False

    async def order(self, config: RunConfig, ordered: Ordered) -> str:
        """Begin a new run and return its name."""
        entry = self._book.order(config, ordered)
        self._begin(entry)
        return entry.run

    def check(self, name: str) -> None:
        """Raise ConfigurationError when there is no run of this name."""
        self._book.read(name)

    def go_on(self) -> None:
        """Go on with the runs that were under way when the service ended.

        What was running then was killed with the service; what waits was stopped in order.
        """
        for entry in self._book.under_way():
            if entry.stopping:
                self._note(entry.moved("stopped", stopped_by_hand(entry.run)))
                continue
            place = self._folder.run(entry.run)
            killed = entry.killed(place.last_round()) if entry.state == "running" else entry
            if killed.kills > _RESTARTS:
                self._note(self._given_up(killed, "its service was killed"))
                continue
            log(__name__).info("run goes on", run=entry.run, after_round=place.last_round())
            self._begin(killed)

    async def resume(self, name: str, *, waits: bool = False) -> None:
        """Go on with a run from its last saved round; from now on it `waits` for every site."""
        entry = self._book.read(name)
        if name in self._running:
            message = f"{name} is under way: wardround-coordinator watch {name}"
            raise ConfigurationError(message)
        if entry.state == "done":
            message = f"{name} is done. Its model: wardround-coordinator export {name}"
            raise ConfigurationError(message)
        anew = {"kills": 0, "stopping": False, "waits": entry.waits or waits}
        self._begin(entry.model_copy(update=anew))

    async def stop(self, name: str) -> None:
        """Stop a run and return when its process has ended."""
        entry = self._book.read(name)
        found = self._running.get(name)
        if found is None:
            message = f"{name} is not under way; it is {entry.state}."
            raise ConfigurationError(message)
        # So that it stays stopped where the service ends before the run's process does.
        self._note(entry.model_copy(update={"stopping": True}))
        await self._end(found, "stopped", stopped_by_hand(name))

    async def ask(
        self, config: RunConfig, seconds: float, *, seed: int = 0, cohorts: bool = False
    ) -> dict[str, list[str]]:
        """Return what sites say to a proposal, without beginning a run.

        `answers` are the messages' headers, `silent` the sites that are connected and say nothing,
        `cohorts`, where they are asked for, one text of JSON (server/rounds/cohort_survey.py).
        """
        more = ["cohorts"] if cohorts else []
        name = f"plan-{config.name}"
        started = await asyncio.to_thread(self._starter.start_run, name)
        try:
            with self._log(name) as lines:
                process = await asyncio.create_subprocess_exec(
                    *ASK_COMMAND,
                    str(self._folder.path),
                    name,
                    f"{seconds:g}",
                    str(seed),
                    *more,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=lines,
                    env=_environment(started.token),
                    start_new_session=True,
                )
            said, _ = await process.communicate(config.to_yaml().encode())
        finally:
            await asyncio.to_thread(self._starter.stop_run, started.number)
        if process.returncode != ExitCode.DONE:
            message = f"The sites could not be asked: {self._last_line(name)}"
            raise RunFailed(message)
        return {name: [str(item) for item in found] for name, found in json.loads(said).items()}

    async def close(self) -> None:
        """Stop all runs; they go on when the service starts again."""
        self._closing = True
        await asyncio.gather(
            *(self._end(found, "waiting", WITH_THE_SERVICE) for found in self._running.values())
        )

    def _begin(self, entry: RunEntry) -> None:
        if self._closing:
            message = "The service is stopping. Start it again: wardround-coordinator start"
            raise ConfigurationError(message)
        self._note(entry.moved("waiting", "It begins."))
        running = _Running()
        self._running[entry.run] = running
        self.queue.enter(entry)
        running.task = asyncio.ensure_future(self._follow(entry, running))

    async def _end(self, running: _Running, state: _Asked, message: str) -> None:
        running.ask(state, message)
        assert running.task is not None  # noqa: S101 - set where it was made
        done, _ = await asyncio.wait({running.task}, timeout=self.stop_seconds)
        if not done and running.process is not None and running.process.returncode is None:
            running.process.kill()
        await asyncio.wait({running.task})

    async def _follow(self, entry: RunEntry, running: _Running) -> None:
        """Run a run's processes to its end and write down how it ended."""
        try:
            await self._wait_for_place(entry, running)
            lock = await self._locked(entry, running)
            try:
                ended = await self._outcome(entry, running, lock)
            finally:
                if lock is not None:
                    lock.close()
        except (OSError, WardroundError) as error:
            ended = entry.moved("failed", str(error), ExitCode.RUN_FAILED)
        self._note(ended)
        self.queue.leave(entry.run)
        del self._running[entry.run]
        log(__name__).info("run ended", run=entry.run, state=ended.state, message=ended.message)

    async def _wait_for_place(self, entry: RunEntry, running: _Running) -> None:
        """Return when the run has a place, or is asked to end."""
        if self.queue.is_at_work(entry.run):
            return
        self.queue.leave(entry.run)  # what an earlier process of it was ready for
        self.queue.enter(entry)
        said = ""
        while running.asked is None and (why := self.queue.why_waiting(entry.run)):
            if why != said:
                self._note(entry.moved("waiting", why))
                said = why
            await running.pause(_LOOK_SECONDS)

    async def _locked(self, entry: RunEntry, running: _Running) -> FileLock | None:
        """Return the lock of the run's folder, or None where it is asked to end before.

        A process of the service before may still be saving its round; it was told to end.
        """
        place, told = self._folder.run(entry.run), False
        while running.asked is None:
            try:
                lock = FileLock(place.lock)
            except Taken:
                if not told:
                    told = True
                    self._note(entry.moved("waiting", EARLIER_PROCESS))
                await running.pause(_LOOK_SECONDS)
                continue
            # So that nobody reads of the end of an earlier attempt.
            place.status.unlink(missing_ok=True)
            return lock
        return None

    async def _outcome(self, entry: RunEntry, running: _Running, lock: FileLock | None) -> RunEntry:
        """Start processes until one ends the run."""
        code, pause, place = None, _SHORTEST_PAUSE, self._folder.run(entry.run)
        before = place.last_round()
        note = f"Goes on after round {before}." if before else ""
        while lock is not None and running.asked is None:
            await self._wait_for_place(entry, running)
            if running.asked is not None:
                break
            why = ""
            try:
                code = await self._once(entry.moved("running", note), running, lock)
            except LinkDown as error:  # Flower's database cannot be written now
                code, why = ExitCode.TRY_AGAIN, str(error)
            if running.asked is not None and code != ExitCode.DONE:
                break
            if code == ExitCode.TRY_AGAIN:
                why = why or self._said(entry)
                log(__name__).warning("run is tried again", run=entry.run, why=why)
                note = f"{why} It is tried again every now and then."
                self._note(entry.moved("waiting", note))
                if place.last_round() > before:
                    before, pause = place.last_round(), _SHORTEST_PAUSE
                if pause > _SHORTEST_PAUSE:
                    self.queue.leave(entry.run)
                await running.pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            elif code < 0 or code == ExitCode.INTERRUPTED:  # told to end, and not by us
                entry = entry.killed(place.last_round())
                name = _signal_name(-code if code < 0 else signal.SIGTERM)
                log(__name__).warning("run was killed", run=entry.run, signal=name)
                if entry.kills > _RESTARTS:
                    return self._given_up(entry, f"its process was, by {name}")
                note = f"Started again after it was killed {entry.kills} times."
            else:
                return self._judged(entry, code)
        assert running.asked is not None  # noqa: S101 - else the loop goes on
        state, message = running.asked
        return entry.moved(state, message, code)

    def _given_up(self, entry: RunEntry, last: str) -> RunEntry:
        reason = killed_too_often(entry, last, self._log_path(entry.run))
        return entry.moved("failed", reason, ExitCode.RUN_FAILED)

    async def _once(self, entry: RunEntry, running: _Running, lock: FileLock) -> int:
        """Start the process once and return its exit status, negative for a signal."""
        started = await asyncio.to_thread(self._starter.start_run, entry.run)
        ours, theirs = socket.socketpair()
        asked = asyncio.ensure_future(self._answer_process(entry, running, ours))
        try:
            with theirs, self._log(entry.run) as lines:
                running.process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(self._folder.path),
                    entry.run,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=lines,
                    stderr=lines,
                    env=_environment(started.token) | {QUEUE: str(theirs.fileno())},
                    # The lock lives as long as the process, even when the service is killed; a
                    # Ctrl-C in the service's terminal is the service's to pass on.
                    pass_fds=(lock.fd, theirs.fileno()),
                    start_new_session=True,
                )
            if running.asked is not None:  # asked while it was being started
                running.process.send_signal(signal.SIGTERM)
            else:
                self._note(entry)
            return await running.process.wait()
        finally:
            running.process = None
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            ours.close()
            try:
                await asyncio.to_thread(self._starter.stop_run, started.number)
            except LinkDown as error:  # it is deleted when the service starts again
                log(__name__).warning("a run's messages stay", run=entry.run, why=str(error))

    async def _answer_process(
        self, entry: RunEntry, running: _Running, connection: socket.socket
    ) -> None:
        """Tell a run's process whether it may work, as often as it asks."""
        reader, writer = await asyncio.open_connection(sock=connection)
        said = ""
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                sites, why = frozenset[str](), ""
                if asked["ready"]:
                    sites, why = self.queue.work_with(entry, asked["ready"], asked["least"])
                else:
                    self.queue.leave(entry.run)
                if why != said and running.asked is None:
                    self._note(entry.moved("waiting", why) if why else entry)
                    said = why
                writer.write(json.dumps({"sites": sorted(sites)}).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()

    def _judged(self, entry: RunEntry, code: int) -> RunEntry:
        """Return how a run ended by itself."""
        if code == ExitCode.DONE:
            return entry.moved("done", self._on_board(entry) or "All rounds are done.", code)
        return entry.moved("failed", self._said(entry), code)

    def _said(self, entry: RunEntry) -> str:
        """Return the last word of a run's process."""
        return self._on_board(entry) or self._last_line(entry.run)

    def _on_board(self, entry: RunEntry) -> str:
        status = view_of(self._folder.run(entry.run)).status
        return status.message if status is not None else ""

    def _note(self, entry: RunEntry) -> None:
        """Write run.json; a full disk must not end a run, or leave its process alone."""
        try:
            self._book.write(entry)
        except OSError as error:
            log(__name__).error("cannot write run.json", run=entry.run, reason=str(error))

    def _log_path(self, run: str) -> Path:
        return self._folder.log / f"run-{run}.log"

    def _log(self, run: str) -> IO[bytes]:
        self._folder.log.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._log_path(run).open("ab")

    def _last_line(self, run: str) -> str:
        path = self._log_path(run)
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1][:_LONGEST_MESSAGE] if lines else "It ended without a word."
        return f"{last} (the whole log is {path})"


def _environment(token: str) -> dict[str, str]:
    own = {TASK_TOKEN: token, SERVICE: str(os.getpid()), "FLWR_TELEMETRY_ENABLED": "0"}
    return {**os.environ, **own}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
