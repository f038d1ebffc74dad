"""Programs of a federation as processes of their own, each ended by its own number."""

from __future__ import annotations

import os
import signal
import site
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

BIN = Path(sys.executable).parent
OWN_PACKAGES = site.getsitepackages()
#: How long anything may take that should be a matter of a second or two, on a busy machine.
PATIENCE_SECONDS = 60.0
_STOP_SECONDS = 30.0
T = TypeVar("T")


def until(
    look: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS, pause: float = 0.02
) -> T:
    """Return the first thing that `look` finds; AssertionError when that takes too long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = look()
        if found:
            return found
        time.sleep(pause)
    message = f"{what}: not within {seconds:g} s"
    raise AssertionError(message)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a program sees: one thread, no proxies, nothing of a person's own homes."""
    kept = {
        n: v
        for n, v in os.environ.items()
        if not n.startswith("WARDROUND_") and not n.lower().endswith("_proxy")
    }
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(more or {})}


def python_with(folder: Path, *packages: Path) -> Path:
    """Return a Python whose environment has these folders' packages, and then what ours has."""
    venv.create(folder, symlinks=True, with_pip=False)
    (own,) = (folder / "lib").glob("python*/site-packages")
    folders = [*map(str, packages), *OWN_PACKAGES]
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in folders]
    (own / "ours.pth").write_text("".join(lines))
    return folder / "bin" / "python"


@dataclass
class Program:
    """One program, which may be started again after it was killed."""

    argv: Sequence[str]
    log: Path  # everything that it prints
    more: dict[str, str] = field(default_factory=dict)  # environment
    folder: Path | None = None  # the current one, where it is not ours
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(self.more),
                cwd=self.folder,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL and wait until it and what it started are gone."""
        below = children(self.pid)
        self.process.kill()
        self.process.wait(_STOP_SECONDS)
        # They end with it, by themselves; what does not would go on writing.
        until(lambda: not any(is_alive(pid) for pid in below), "children end with their parent")

    def stop(self) -> int | None:
        """End it as an admin does; SIGKILL only if that does not help."""
        if self._process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            message = f"{self.argv[0]} did not stop in {_STOP_SECONDS:g} s"
            raise AssertionError(message) from None

    def text(self) -> str:
        """Return what it printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def typed(
    *argv: str, more: Mapping[str, str] | None = None, seconds: float = PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a command as a person types it."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment(more),
    )


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def child_of(pid: int, word: str) -> int | None:
    """Return the child that has this word in its command line."""
    for child in children(pid):
        with suppress(OSError):
            if word.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return child
    return None


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be buried does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def kill_if_there(pid: int | None) -> bool:
    """End a process with SIGKILL; returns whether it was there."""
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
