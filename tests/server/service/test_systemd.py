from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.app import app
from server.files.coordinator_yaml import Settings, new_settings
from server.service.systemd import OPEN_FILES, CoordinatorUnit, low_port, unit
from tests.server.coordinator import made

pytestmark = pytest.mark.processes


def service_of(folder: Path, address: str = "coordinator.example.org:8443") -> CoordinatorUnit:
    program = folder / "bin" / "wardround-coordinator"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return CoordinatorUnit(
        program=program,
        folder=folder / "a b%n",
        user="daemon",
        settings=new_settings("breast", address),
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit_and_finds_little_open(tmp_path: Path) -> None:
    path = tmp_path / "wardround-coordinator.service"
    path.write_text(unit(service_of(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "wardround" in line] == []
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" not in done.stderr and "Unknown" not in done.stderr:
        assert done.returncode == 0, done.stdout[-600:]


def test_the_coordinators_folder_is_all_that_is_written_and_it_has_files_enough(
    tmp_path: Path,
) -> None:
    text = unit(service_of(tmp_path))
    assert f'ReadWritePaths="{tmp_path}/a b%%n"\n' in text
    assert "ReadOnlyPaths" not in text
    for line in (
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "PrivateDevices=yes",
        "UMask=0077",
        f"LimitNOFILE={OPEN_FILES}",
        "TimeoutStopSec=50",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ):
        assert f"\n{line}\n" in text


def test_the_command_writes_it_and_says_how_to_install_it(tmp_path: Path) -> None:
    folder, _ = made(tmp_path / "coordinator")
    out = tmp_path / "unit"
    found = CliRunner().invoke(app, ["service", "--folder", str(folder.path), "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert "systemctl enable --now wardround-coordinator" in found.output
    assert f"--folder {folder.path}" in out.read_text()


@pytest.mark.parametrize(("address", "port"), [("a.example:443", 443), ("a.example:8443", None)])
def test_a_port_that_only_root_may_take_is_named(address: str, port: int | None) -> None:
    settings: Settings = new_settings("breast", address)
    assert low_port(settings) == port
