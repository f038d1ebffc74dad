from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.config.run_config import load_config, without_privacy
from common.messages.enrolment import JoinRequest
from common.messages.signing_key import fingerprint, new_private_key, public_text
from common.platform.errors import ConfigurationError, ExitCode
from server.cli.plan import show_plan
from server.enrolment.initialise import set_up
from server.enrolment.registry import Enrolment
from server.files.coordinator_yaml import Settings
from server.files.folder import Folder
from tests.server.coordinator import free_ports

CONFIG = """
name: line
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}, {column: crp}]}}
model: {network: table}
training: {rounds: 4, optimizer: sgd}
aggregation: {smallest_quorum: 2}
privacy: {unit: patient, epsilon: 3.0, public_patients: {north: 200, south: 50}}
"""


def test_a_plan_needs_no_service_and_no_coordinator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    assert show_plan(Folder(tmp_path / "none"), path, as_json=False) == ExitCode.DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "From the configuration alone: there is no coordinator here" in shown
    assert "50 agreed 3" in shown
    assert "not asked" in shown
    assert "4 rounds with the accepted sites, at least 2 in each" in shown
    assert not (tmp_path / "none").exists()


def test_a_plan_counts_the_accepted_sites_and_says_what_would_stop_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "line.yaml", Folder(tmp_path)
    path.write_text(CONFIG, encoding="utf-8")
    enrolment = Enrolment(folder.enrolment)
    for site in ("north", "south"):
        invite = enrolment.invite(site, address="localhost:1", ca_sha256="0" * 64, hours=1)
        key = public_text(new_private_key())
        enrolment.join(JoinRequest.made(invite, key))
        if site == "north":
            enrolment.accept(site, fingerprint(key))
    assert show_plan(folder, path, as_json=True) == ExitCode.RUN_FAILED
    plan = json.loads(capsys.readouterr().out)
    assert plan["expected_sites"] == 1
    assert [site["patients"] for site in plan["sites"]] == [200, 50]
    assert "1 of 1 sites can take part, expected at least 2" in plan["stops"][0]


def test_a_plan_of_no_configuration_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Cannot read the configuration"):
        show_plan(Folder(tmp_path), tmp_path / "line.yaml", as_json=False)


@pytest.mark.processes
def test_a_plan_before_any_site_is_accepted_says_so_and_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    folder = Folder(tmp_path)
    sites, operator = free_ports(2)
    set_up(
        folder,
        Settings(
            name="here",
            address=f"localhost:{sites}",
            listen=f"127.0.0.1:{sites}",
            operator=f"127.0.0.1:{operator}",
        ),
    )
    assert show_plan(folder, path, as_json=False) == ExitCode.RUN_FAILED
    shown = " ".join(capsys.readouterr().out.split())
    assert "From the configuration alone: the service does not run" in shown
    assert "No site is accepted yet. Invite one: wardround-coordinator invite SITE" in shown
    invite = Enrolment(folder.enrolment).invite(
        "north", address="localhost:1", ca_sha256="0" * 64, hours=1
    )
    Enrolment(folder.enrolment).join(JoinRequest.made(invite, public_text(new_private_key())))
    assert show_plan(folder, path, as_json=False) == ExitCode.RUN_FAILED
    shown = " ".join(capsys.readouterr().out.split())
    assert "north waits for you" in shown
    assert "wardround-coordinator sites accept north=SHA256:..." in shown


def test_a_plan_is_of_the_run_that_the_same_options_would_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "line.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    show_plan(Folder(tmp_path / "none"), path, as_json=True, without=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["privacy"].startswith("No privacy")
    assert plan["fingerprint"] == without_privacy(load_config(path)).fingerprint()
