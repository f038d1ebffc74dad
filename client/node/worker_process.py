"""The worker as the daemon sees it: started, given one job at a time, ended when idle, restarted.

Only the daemon's own thread ends a worker and hands out jobs, and never in one step: a request that
comes while an idle worker ends waits in the inbox, and wakes the next one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from client.site.home import FIRST
from client.transport.quarantine import MOST_DEATHS
from common.platform.awake_clock import AwakeClock
from common.platform.program_start import START

#: A request is read in this time, and in a second more for each so many bytes.
_READING_SECONDS = 120.0
_BYTES_A_SECOND = 2 * 2**20
#: Between two looks of the daemon; where it is longer the machine stood still, and the worker, too.
_LONGEST_TURN_SECONDS = 60.0
#: The worker loads its libraries in this time, on any machine and disk.
_STARTING_SECONDS = 900.0
#: A worker that neither opens a file nor takes a step for so long stands still.
STANDSTILL_SECONDS = 1800.0
_STOP_SECONDS = 10.0
#: A worker that dies at once is not started again at once.
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A job that is over."""

    question: str
    seconds: float
    failed: bool  # True: the worker died over it too often, and there is no answer
    unreadable: str = ""  # why it is no request
    unkept: str = ""  # why its answer could not be kept
    is_full: bool = False  # True: for want of room


class WorkerProcess:
    """One child process; `given` is the job that it is at."""

    def __init__(
        self,
        home: Path,
        log: IO[bytes] | int,
        standstill_seconds: float = STANDSTILL_SECONDS,
        federation: str = FIRST,
    ) -> None:
        self._home, self._federation = home, federation
        #: Whether the workers of other federations leave machine and memory to this one.
        self.may_work: Callable[[], bool] = lambda: True
        self._log = log
        #: Counts deaths; one that outlives this process does so by request (Quarantine.died).
        self.died: Callable[[str, str], int] = self._died_here
        self._standstill_seconds = standstill_seconds
        self._awake = AwakeClock(_LONGEST_TURN_SECONDS)
        self._ends = math.inf  # when it counts as standing still there, unless it is heard of
        self._ready = False
        self._why = ""  # it was killed by us
        self._process: subprocess.Popen[bytes] | None = None
        self._text = b""
        self._deaths: dict[str, int] = {}
        self._starts: list[float] = []
        self._retired = False
        self._working = False
        self._idle_since = math.inf  # since when a worker that is ready has had no job
        #: A worker without a job ends after so long, and `start` makes another.
        self.idle_seconds = math.inf
        #: It ended because there was nothing to do; `start` makes another.
        self.rests = False
        self.given: str | None = None
        self.restarts = 0
        self.restarted: Callable[[], None] = lambda: None  # is told of each

    @property
    def pid(self) -> int | None:
        """Return the child's number, or None when there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the child, unless it runs or has died too often lately."""
        if self._process is not None or time.monotonic() < self._not_before():
            return
        environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"}
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *START, "client.node.worker", str(self._home), self._federation],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call, no locks
            start_new_session=True,  # Ctrl-C is the daemon's, which lets a job come to its end
        )
        self._starts.append(time.monotonic())
        self._text, self._ready, self._why = b"", False, ""
        self._idle_since, self.rests = math.inf, False
        self._ends = self._awake() + _STARTING_SECONDS

    def give(self, request: Path, question: str) -> bool:
        """Hand a job to the child; False when it is not there to take it."""
        if not self.can_take or self._process is None or self._process.stdin is None:
            return False
        line = json.dumps({"request": str(request), "question": question}) + "\n"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
            self.given, self._working = question, False
            size = request.stat().st_size if request.exists() else 0
            self._ends = self._awake() + _READING_SECONDS + size / _BYTES_A_SECOND
        return self.given is not None

    @property
    def can_take(self) -> bool:
        """Return whether a job can be given now."""
        there = self._process is not None and self._ready
        return there and self.given is None and not self._retired and self.may_work()

    def rest(self) -> None:
        """End the child if it has had no job for long: most of a site's memory is its."""
        if self.can_take and time.monotonic() - self._idle_since > self.idle_seconds:
            self.stop()
            self.rests = True

    def retire(self) -> None:
        """Let the child end after its job, so that the next one reads site.yaml anew."""
        self._retired = True

    def look(self) -> Finished | None:
        """Return the job that is over, if one is; a dead child is noted."""
        if self._retired and self.given is None:
            self.stop()
            self._retired = False
        if self._process is None:
            return None
        finished = self._read()
        if finished is None and self._awake() > self._ends and not self._why:
            self._why = "it stood still"
            self._process.kill()
            self._process.wait()
        if finished is None and self._process.poll() is not None:
            finished = self._read() or self._bury()
        return finished

    def stop(self) -> None:
        """End the child, politely first."""
        process, self._process, self.given = self._process, None, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _read(self) -> Finished | None:
        if self._process is None or self._process.stdout is None:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if selector.select(0):
                self._text += os.read(self._process.stdout.fileno(), 65536)
        while b"\n" in self._text:
            line, _, self._text = self._text.partition(b"\n")
            finished = self._heard(json.loads(line))
            if finished is not None:
                return finished
        return None

    def _heard(self, facts: Mapping[str, Any]) -> Finished | None:
        match facts:
            case {"done": str(question), "seconds": float(seconds)}:
                self._is_free()
                self._deaths.pop(question, None)
                return Finished(question=question, seconds=seconds, failed=False)
            case {"unreadable": str(question), "why": str(why)}:
                self._is_free()
                return Finished(question=question, seconds=0.0, failed=True, unreadable=why)
            case {"unkept": str(question), "why": str(why), "full": bool(full)}:
                self._is_free()
                self._deaths.pop(question, None)
                return Finished(
                    question=question, seconds=0.0, failed=True, unkept=why, is_full=full
                )
            case {"ready": _}:
                self._ready = True
                self._is_free()
            case {"working": _}:
                self._working = True
                self._ends = self._awake() + self._standstill_seconds
            case {"progress": _} if self._working and self.given is not None:
                self._ends = self._awake() + self._standstill_seconds
            case _:
                pass
        return None

    def _is_free(self) -> None:
        self.given, self._ends = None, math.inf
        self._idle_since = time.monotonic()

    def _bury(self) -> Finished | None:
        """Note a death; a job that was in hand is given again, but not for ever."""
        question, why = self.given, self._why or self._end_of(self._process)
        self.stop()
        self.restarts += 1
        self.restarted()
        if question is None or self.died(question, why) < MOST_DEATHS:
            return None
        self._deaths.pop(question, None)
        return Finished(question=question, seconds=0.0, failed=True)

    def _died_here(self, question: str, why: str) -> int:
        del why
        self._deaths[question] = self._deaths.get(question, 0) + 1
        return self._deaths[question]

    @staticmethod
    def _end_of(process: subprocess.Popen[bytes] | None) -> str:
        code = 0 if process is None else process.returncode
        if code == -signal.SIGKILL:
            return "killed, as the system does when memory is short"
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def _not_before(self) -> float:
        """Return when the next child may start: later the more often it died lately."""
        recent = [s for s in self._starts if s > time.monotonic() - 60]
        self._starts = recent
        if len(recent) <= 2:
            return 0.0
        return recent[-1] + min(2.0 ** (len(recent) - 2), _LONGEST_PAUSE)


def _die_with_parent() -> None:
    """End with the daemon, however it ends (Linux: prctl PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
