from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from client.node.systemd import SiteUnit, how_to_install, unit
from client.site.site_config import SiteConfig


def service_of(folder: Path, **changed: object) -> SiteUnit:
    program = folder / "bin" / "wardround-site"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    content: dict[str, object] = {"name": "north", "data": folder / "images", **changed}
    return SiteUnit(
        program=program,
        home=folder / "site",
        user="root",
        config=SiteConfig.model_validate(content),
    )


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"device": "cpu", "memory_gib": 1.5},
        {"labels": "/elsewhere/labels.csv"},
        {"data": "/a b/%n/im'ages"},
    ],
)
def test_systemd_accepts_the_unit_without_a_word(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    path = tmp_path / "wardround-site.service"
    path.write_text(unit(service_of(tmp_path, **changed)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    # Of the machine, not of the unit: what it says of other units is none of ours.
    said = [line for line in done.stderr.splitlines() if "wardround-site" in line]
    assert said == []


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_leaves_little_open_by_systemds_own_measure(tmp_path: Path) -> None:
    path = tmp_path / "wardround-site.service"
    path.write_text(unit(service_of(tmp_path, device="cpu")).replace("User=root", "User=daemon"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr or "Unknown" in done.stderr:
        pytest.skip("this systemd measures no files")
    assert done.returncode == 0, done.stdout[-600:]


def test_images_are_only_read_and_the_sites_own_folder_is_all_that_is_written(
    tmp_path: Path,
) -> None:
    found = settings(unit(service_of(tmp_path, labels="/labels/table.csv")))
    assert found["ReadWritePaths"] == str(tmp_path / "site")
    assert found["ReadOnlyPaths"] == f"-{tmp_path / 'images'} -/labels/table.csv"
    assert found["ProtectSystem"] == "strict"
    assert found["NoNewPrivileges"] == found["PrivateTmp"] == "yes"
    assert found["UMask"] == "0077"
    assert found["CapabilityBoundingSet"] == ""
    assert found["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX"


@pytest.mark.parametrize(("gib", "limit"), [(None, "infinity"), (4.0, "5120M"), (1.5, "2560M")])
def test_the_memory_is_the_workers_and_the_daemons(
    tmp_path: Path, gib: float | None, limit: str
) -> None:
    assert settings(unit(service_of(tmp_path, memory_gib=gib)))["MemoryMax"] == limit


@pytest.mark.parametrize(("device", "private"), [("cpu", True), ("auto", False), ("cuda", False)])
def test_a_gpu_is_the_only_device_and_only_where_one_is_used(
    tmp_path: Path,
    device: str,
    private: bool,  # noqa: FBT001
) -> None:
    found = settings(unit(service_of(tmp_path, device=device)))
    assert ("PrivateDevices" in found) is private
    assert found.get("DevicePolicy") == (None if private else "closed")


@pytest.mark.parametrize(("data", "protect"), [("/srv/images", "yes"), ("/home/pacs", "read-only")])
def test_peoples_homes_are_hidden_unless_something_of_ours_is_in_one(
    data: str, protect: str
) -> None:
    config = SiteConfig(name="north", data=Path(data))
    service = SiteUnit(
        program=Path("/opt/wardround/bin/wardround-site"),
        home=Path("/var/lib/wardround"),
        user="wardround",
        config=config,
    )
    assert settings(unit(service))["ProtectHome"] == protect


def test_a_wrong_configuration_is_not_tried_for_ever(tmp_path: Path) -> None:
    found = settings(unit(service_of(tmp_path)))
    assert (found["Restart"], found["RestartPreventExitStatus"]) == ("always", "2")


def test_installing_it_is_told_step_by_step(tmp_path: Path) -> None:
    service = service_of(tmp_path)
    steps = how_to_install(service, tmp_path / "unit")
    assert any(step.startswith("systemctl enable --now") for step in steps)
    assert any("doctor" in step for step in steps)
