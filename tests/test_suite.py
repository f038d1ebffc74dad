"""The suite itself: what it starts, what it says of what was not run, how it is called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import peers

ROOT = Path(__file__).parents[1]
#: A test that sends SIGINT to a child, and one that starts a server and says so nowhere.
PROBE = """
import signal, socket, subprocess, sys
import pytest

@pytest.mark.processes
def test_a_child_hears_an_interrupt():
    child = "import time; print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", child], stdout=-1, stderr=-3) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT

def test_a_server_that_nobody_was_told_of():
    with socket.create_server(("127.0.0.1", 0)):
        pass
"""


@pytest.mark.processes
def test_children_hear_interrupts_under_nohup_and_unmarked_servers_are_failures(
    tmp_path: Path,
) -> None:
    probe = tmp_path / "test_probe.py"
    probe.write_text(PROBE, encoding="utf-8")
    options = "-q -p no:cacheprovider -p tests.conftest -c pyproject.toml"
    done = subprocess.run(
        ["/bin/sh", "-c", f"trap '' INT; exec {sys.executable} -m pytest {options} {probe}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
    )
    assert "2 passed, 1 error" in done.stdout, done.stdout
    assert "mark it with pytest.mark.processes" in done.stdout
    assert "test_a_server_that_nobody_was_told_of" in done.stdout.rpartition("\nERROR ")[2]


def test_a_missing_peer_is_a_failure_until_make_says_that_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers.shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("MISSING_PEERS", raising=False)
    with pytest.raises(AssertionError, match=r"storescu is missing: .* the Debian package dcmtk"):
        peers.program("storescu")
    monkeypatch.setenv("MISSING_PEERS", "orthanc dcmtk")
    with pytest.raises(pytest.skip.Exception, match="needs the package dcmtk"):
        peers.program("storescu")
    with pytest.raises(AssertionError, match="gcc is missing"):
        peers.program("gcc")


def test_the_last_line_counts_and_names_what_was_not_run() -> None:
    reasons = ["needs the package orthanc", "needs the package gcc", "needs the package orthanc"]
    assert peers.not_run([*reasons, "another reason"]) == (
        "Not run: 3 tests (1 need gcc, 2 need orthanc), and 1 for the reasons above. "
        "As root: apt-get install --no-install-recommends gcc orthanc"
    )
    assert peers.not_run([]) == ""
    assert peers.not_run(["another reason"]) == "Not run: 1 tests for the reasons above."


def test_every_peer_has_a_package_that_make_installs() -> None:
    script = (ROOT / "tests" / "peers.sh").read_text(encoding="utf-8")
    looked_for = set(re.findall(r"\|\| echo (\S+)", script))
    assert set(peers.PACKAGES.values()) | {"orthanc-dicomweb", "libc6-dev", "npm"} == looked_for


@pytest.mark.processes
@pytest.mark.parametrize(("required", "status"), [({}, 0), ({"PEERS_REQUIRED": "1"}, 1)])
def test_a_missing_peer_fails_where_all_must_run_and_nowhere_else(
    required: dict[str, str], status: int
) -> None:
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "tests" / "peers.sh")],
        env={"PATH": "/nowhere", **required},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "dcmtk" in done.stdout.split()
    assert done.returncode == status
    assert "PEERS_REQUIRED" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_ci_calls_what_people_call() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [
        line for line in lines if line and not line.startswith(("#", "set ", "cd ", "export "))
    ]
    assert all(command.startswith("make ") for command in commands)
    assert {"make check", "make test"} <= set(commands)
