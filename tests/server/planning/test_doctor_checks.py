from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.platform.file_lock import FileLock
from server.cli.app import app
from server.enrolment.certificates import Authority, now
from server.files.coordinator_yaml import Settings, host_and_port
from server.files.folder import Folder
from server.planning.doctor_checks import Finding, examine
from tests.server.coordinator import made

pytestmark = pytest.mark.processes


@pytest.fixture
def place(tmp_path: Path) -> tuple[Folder, Settings]:
    return made(tmp_path / "coordinator")


def wrong(folder: Folder) -> list[Finding]:
    return [finding for finding in examine(folder) if finding.state == "wrong"]


def test_a_new_coordinator_is_ready(place: tuple[Folder, Settings]) -> None:
    folder, _ = place
    found = {finding.check: finding for finding in examine(folder)}
    assert wrong(folder) == []
    assert found["service"].fix == "wardround-coordinator start"
    assert set(found) >= {"packages", "permissions", "certificate", "clock", "disk", "ports"}


def open_up(folder: Folder, _settings: Settings) -> None:
    folder.ca_key.chmod(0o644)


def expire(folder: Folder, _settings: Settings) -> None:
    Authority.load(folder).issue(folder, ["127.0.0.1"], now() - timedelta(days=500))


def damage(folder: Folder, _settings: Settings) -> None:
    folder.database.write_bytes(b"no database" * 1000)


def set_clock_back(folder: Folder, _settings: Settings) -> None:
    later = now().timestamp() + 7200
    os.utime(folder.settings, (later, later))


def misspell(folder: Folder, _settings: Settings) -> None:
    folder.settings.write_text(folder.settings.read_text().replace("listen:", "listn:"))


@pytest.mark.parametrize(
    ("fault", "check", "fix"),
    [
        (open_up, "permissions", "chmod 600"),
        (expire, "certificate", "start renews it"),
        (damage, "database", "move it away"),
        (set_clock_back, "clock", "timedatectl"),
        (misspell, "coordinator.yaml", ""),
    ],
)
def test_a_fault_is_found_and_its_mending_said(
    place: tuple[Folder, Settings], fault: Callable[[Folder, Settings], None], check: str, fix: str
) -> None:
    fault(*place)
    found = wrong(place[0])
    assert [finding.check for finding in found] == [check]
    assert fix in found[0].fix
    assert found[0].fix


def test_a_taken_port_is_found(place: tuple[Folder, Settings]) -> None:
    folder, settings = place
    with socket.create_server(host_and_port(settings.operator)):
        found = wrong(folder)
    assert [finding.check for finding in found] == ["ports"]
    assert "change operator in" in found[0].fix
    with socket.create_server(host_and_port(settings.listen)), FileLock(folder.lock):
        assert wrong(folder) == []  # it is our own service that has it


def test_databases_are_read_only(place: tuple[Folder, Settings]) -> None:
    folder, _ = place
    with closing(sqlite3.connect(folder.enrolment)) as connection:
        connection.execute("CREATE TABLE t (x)")
    folder.enrolment.chmod(0o600)
    before = folder.enrolment.read_bytes()
    assert wrong(folder) == []
    assert folder.enrolment.read_bytes() == before


# --- init -----------------------------------------------------------------------------------


def command(path: Path, *words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, [*words, "--folder", str(path)], env={"COLUMNS": "300"})
    return found.exit_code, found.stdout + found.stderr


def test_init_asks_nothing_and_says_what_comes_next(tmp_path: Path) -> None:
    status, said = command(tmp_path / "c", "init")
    assert status == 0, said
    assert "Next: wardround-coordinator start" in said
    assert "wardround-coordinator move HOST:PORT" in said
    assert command(tmp_path / "c", "doctor")[0] in {0, 1}  # this machine's ports may be taken
    assert {path.name for path in (tmp_path / "c").iterdir()} >= {
        "coordinator.yaml",
        "ca.pem",
        "ca.key",
        "server.pem",
        "server.key",
        "operator.token",
    }
    for secret in ("ca.key", "server.key", "operator.token"):
        assert (tmp_path / "c" / secret).stat().st_mode & 0o077 == 0


def test_init_does_not_write_over_a_coordinator(tmp_path: Path) -> None:
    assert command(tmp_path, "init", "--address", "c.example:9000", "--name", "study")[0] == 0
    before = (tmp_path / "ca.pem").read_bytes()
    status, said = command(tmp_path, "init")
    assert status == 2
    assert "There is a coordinator in" in said
    assert (tmp_path / "ca.pem").read_bytes() == before


@pytest.mark.parametrize(
    "address",
    ["", ":8443", "host:", "host:0", "host:99999", "ho st:1", "http://host:1", "a:b:c", "-"],
)
def test_an_address_that_is_none_is_refused_with_an_example(tmp_path: Path, address: str) -> None:
    status, said = command(tmp_path / "c", "init", f"--address={address}")
    assert status == 2
    assert "--address coordinator.example.org:8443" in said
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("address", "reached", "listen"),
    [
        ("coordinator.example", "coordinator.example:8443", "0.0.0.0:8443"),
        ("192.0.2.7:65535", "192.0.2.7:65535", "0.0.0.0:65535"),
        ("[2001:db8::1]:9000", "[2001:db8::1]:9000", "[::]:9000"),
        ("127.0.0.1:9000", "127.0.0.1:9000", "127.0.0.1:9000"),
    ],
)
def test_sites_reach_the_given_address_and_the_operator_is_on_loopback(
    tmp_path: Path, address: str, reached: str, listen: str
) -> None:
    assert command(tmp_path, "init", "--address", address)[0] == 0
    text = (tmp_path / "coordinator.yaml").read_text()
    assert f'address: "{reached}"' in text
    assert f'listen: "{listen}"' in text
    assert 'operator: "127.0.0.1:' in text


@pytest.mark.parametrize(
    "words",
    [
        ("start",),
        ("invite", "north"),
        ("sites",),
        ("sites", "accept", "north=SHA256:x"),
        ("run", "nothing.yaml"),
        ("status",),
        ("watch",),
        ("stop", "demo"),
        ("resume", "demo"),
        ("export",),
        ("doctor",),
    ],
)
def test_a_command_before_init_says_to_init(tmp_path: Path, words: tuple[str, ...]) -> None:
    status, said = command(tmp_path / "nowhere", *words)
    assert status == 2
    expected = "nothing.yaml" if words[0] == "run" else "wardround-coordinator init"
    assert expected in said
