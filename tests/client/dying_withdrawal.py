"""A withdrawal that is killed at one statement after another, and then typed once more.

Each death is a forked copy of this process that sends itself SIGKILL when it comes to its
statement of withdrawing or forgetting. One line of JSON a death.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from client.cli import withdraw as withdrawing
from client.dicom.pixels import pixel_store
from client.site import cache, withdrawals
from client.site.home import Home
from client.withdrawal import purge as forgetting
from common.platform import hash_chain

WATCHED = {
    module.__file__
    for module in (cache, forgetting, pixel_store, withdrawals, withdrawing, hash_chain)
}


def withdraw(home: Home, patient: str) -> None:
    """Type the command."""
    withdrawing.withdraw(home, patient, yes=True, delete_pulled=False)


def die_at(statement: int) -> None:
    """Kill this process when it comes to this statement of the watched files."""
    left = statement

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]  # the stubs know no recursive type


def holds(folder: Path, needle: bytes) -> bool:
    """Return whether any file of a folder has these bytes in it."""
    return any(needle in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def one_death(home: Home, patient: str, needle: bytes, statement: int) -> dict[str, object]:
    """Return how a copy of this process died, what was left, and what after the second try."""
    shutil.rmtree(home.folder, ignore_errors=True)
    shutil.copytree(home.folder.with_name("before"), home.folder)
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr
        die_at(statement)
        withdraw(home, patient)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found: dict[str, object] = {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
        "written": patient in withdrawals.withdrawn(home),
        "pixels": holds(home.cache, needle),
    }
    withdraw(home, patient)
    (one,) = withdrawals.listed(home.withdrawals)
    return found | {
        "pixels_at_last": holds(home.cache, needle),
        "ended": one.forgotten_at is not None,
    }


def main() -> None:
    """Die at every statement in turn until one copy lives to the end."""
    folder, patient, needle, step = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr
    home = Home(Path(folder) / "home")
    for statement in range(0, 100_000, int(step)):
        death = one_death(home, patient, bytes.fromhex(needle), statement)
        out.write(json.dumps(death) + "\n")
        if death["signal"] == 0:
            return


if __name__ == "__main__":
    main()
