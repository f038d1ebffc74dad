"""Fixtures and hooks of all tests: profiles, signals, processes, and what was not run."""

from __future__ import annotations

import multiprocessing.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import urllib3  # noqa: F401 - binds once, to see whether there is IPv6, when MONAI first loads it
from hypothesis import settings

from common.platform.freed_memory import no_search_for_garbage, sort_out_what_stays
from tests import peers

# The same examples everywhere, and no limit by the clock: a busy machine is no fault of the code.
settings.register_profile("wardround", deadline=None, derandomize=True)
settings.load_profile("wardround")


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> None:
    """Undo an ignored SIGINT, as nohup, cron and some CIs leave it: children would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _claims_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what homes of tests claim out of the folder of whoever runs them."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def _a_package_each() -> Iterator[None]:
    """Take each module of the tests for a distribution of its own.

    A network that a test declares shares no globals with the tests that happen to be imported:
    listing what those hold cost it seconds in a run of all.
    """
    state = sys.modules.get("client.privacy.reachable_state")  # who has none declares no network

    def of(code: object) -> str:
        named = "__name__" if isinstance(code, ModuleType) else "__module__"
        name = str(getattr(code, named, None))
        return name if name.startswith("tests.") else name.partition(".")[0]

    with pytest.MonkeyPatch.context() as patch:
        if state is not None:
            patch.setattr(state, "_package", of)
        yield


# --- where their files lie --------------------------------------------------------------------

#: The folder that Linux keeps in memory, and what a whole run may need there, with room to spare.
_MEMORY, _ROOM = Path("/dev/shm"), 8 << 30  # noqa: S108 - pytest makes a folder of its own in it


def _has_room() -> bool:
    """Return whether there is such a folder, large enough, from which programs may be started."""
    try:
        told = os.statvfs(_MEMORY)
        free = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return False
    usable = os.access(_MEMORY, os.W_OK) and not told.f_flag & os.ST_NOEXEC
    room = min(told.f_bavail * told.f_frsize, int(free[1]) << 10 if free else 0)
    return usable and room > _ROOM


def pytest_configure(config: pytest.Config) -> None:
    """Keep files of tests in memory where it fits: a disk is waited for at every fsync.

    Processes are killed in tests, machines are not, so it makes no difference to what is tested.
    """
    if config.option.basetemp is None and _has_room():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_report_header() -> str:
    """Say where the files of tests lie."""
    return f"files of tests: {os.environ.get('PYTEST_DEBUG_TEMPROOT', tempfile.gettempdir())}"


# --- in which order ---------------------------------------------------------------------------


#: Files that take a minute or more, beside those of end_to_end.
_LONG = frozenset({"test_flower_ray.py", "test_flower_sites.py", "test_notebooks.py"})
#: The part of the order by which the last file that waits has been taken.
_WAITED_BY = 0.8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mix files that mostly wait with files that compute, the longest first.

    Workers take files in this order (--no-loadscope-reorder): while one waits for a federation,
    another computes, and the end is left to short files.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = {path for path, of_file in files.items() if any(map(_is_slow, of_file))}
    first = sorted(
        waiting, key=lambda p: (p.parent.name != "end_to_end" and p.name not in _LONG, p)
    )
    second = sorted(set(files) - waiting, key=lambda p: (-len(files[p]), p))
    place = {p: n / len(first) * _WAITED_BY for n, p in enumerate(first)}
    place |= {p: n / len(second) for n, p in enumerate(second)}
    items[:] = [item for path in sorted(place, key=place.__getitem__) for item in files[path]]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Search what is loaded for garbage neither while it comes nor later: it stays to the end."""
    with no_search_for_garbage():
        yield
        sort_out_what_stays()


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


# --- which tests start processes and servers -------------------------------------------------

#: What the running test started.
_started: list[str] = []


def _watch(owner: Any, name: str) -> None:
    """Let every call of a function be noted."""
    original = getattr(owner, name)

    @wraps(original)
    def noted(*given: Any, **named: Any) -> Any:
        _started.append(f"{owner.__name__}.{name}")
        return original(*given, **named)

    setattr(owner, name, noted)


_watch(subprocess.Popen, "__init__")
_watch(socket.socket, "bind")
_watch(multiprocessing.util, "spawnv_passfds")
_watch(os, "fork")
_watch(os, "posix_spawn")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Forget what earlier tests started."""
    del item
    _started.clear()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that starts something without saying so: `make test-fast` would run it."""
    yield
    if _started and not any(map(item.get_closest_marker, ("processes", "slow"))):
        what = ", ".join(sorted(set(_started)))
        pytest.fail(f"This test called {what}: mark it with pytest.mark.processes.", pytrace=False)


# --- what was not run ------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End with a line that names the peers that were missing, and how many tests need them."""
    reasons = [
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple)
    ]
    line = peers.not_run(reasons)
    if line:
        terminalreporter.write_line(line, yellow=True)
