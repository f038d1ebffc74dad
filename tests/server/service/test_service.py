"""The whole service as a process, through the coordinator's own commands."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from common.config.run_config import load_config
from common.messages.enrolment import JOIN_PATH, Invite, JoinRequest
from common.messages.signing_key import fingerprint, new_private_key, public_text
from server.cli.app import app
from server.enrolment.certificates import client_context
from server.files.coordinator_yaml import Settings, host_and_port, write_settings
from server.files.folder import Folder
from server.service.operator_client import Operator
from server.service.run_book import Ordered, RunBook
from tests.server.coordinator import made
from tests.server.service_process import service

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
CONFIG = load_config(ROOT / "configs" / "simulations" / "demo.yaml")
DONE, RUN_FAILED, WRONG, TRUST_REFUSED, UNREACHABLE, INTERRUPTED = 0, 1, 2, 6, 7, 130


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Settings]:
    return made(tmp_path_factory.mktemp("coordinator"))


@pytest.fixture(scope="module", autouse=True)
def process(place: tuple[Folder, Settings]) -> Iterator[subprocess.Popen[str]]:
    with service(place[0].path) as found:
        yield found


def command(folder: Folder, *words: str, status: int = DONE) -> str:
    """Give a command of the coordinator's and return what it says."""
    found = CliRunner().invoke(
        app, [*words, "--folder", str(folder.path)], env={"COLUMNS": "300", "TERM": "dumb"}
    )
    said = found.stdout + found.stderr
    assert found.exit_code == status, said
    return said


def config_that(tmp_path: Path, description: str) -> str:
    path = tmp_path / "run.yaml"
    config = CONFIG.model_copy(update={"description": description, "name": "demo"})
    path.write_text(config.to_yaml(), encoding="utf-8")
    return str(path)


def until(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def shown_certificate(place: tuple[Folder, Settings]) -> str:
    return ssl.get_server_certificate(host_and_port(place[1].listen))


def join(folder: Folder, settings: Settings, line: str) -> str:
    """Join as a site does, and return the fingerprint that its admin would read out."""
    key = public_text(new_private_key())
    with httpx.Client(verify=client_context(folder)) as client:
        content = JoinRequest.made(Invite.from_text(line), key).to_json()
        answer = client.post(f"https://{settings.listen}{JOIN_PATH}", content=content)
    assert answer.status_code == 200, answer.text
    return fingerprint(key)


def test_sites_are_invited_accepted_and_revoked(
    place: tuple[Folder, Settings], tmp_path: Path
) -> None:
    folder, settings = place
    said = command(folder, "invite", "north", "south", "--out", str(tmp_path))
    assert "sites accept north=SHA256:..." in said
    assert "join INVITE --data FOLDER" in said
    assert "invited" in command(folder, "sites")
    shown = join(folder, settings, (tmp_path / "north.invite").read_text())
    listed = command(folder, "sites")
    assert "pending" in listed
    unsure = command(folder, "sites", "accept", "north", status=WRONG)
    for said in (listed, unsure, command(folder, "sites", "--json")):  # typed as it was heard
        assert shown not in said
    assert "sites accept north=SHA256:..." in listed
    assert "sites accept north=SHA256:..." in unsure
    wrong = fingerprint(public_text(new_private_key()))
    refused = command(folder, "sites", "accept", f"north={wrong}", status=TRUST_REFUSED)
    assert "somebody else used the invitation" in refused
    assert "is accepted" in command(folder, "sites", "accept", f"north={shown}")
    assert "accepted, not connected" in command(folder, "sites")
    assert "enrolled already" in command(folder, "invite", "north", status=TRUST_REFUSED)
    assert "wardround-coordinator invite north" in command(folder, "sites", "revoke", "north")
    assert "revoked" in command(folder, "sites")
    assert "no site 'nobody'" in command(folder, "sites", "revoke", "nobody", status=TRUST_REFUSED)
    one = command(folder, "invite", "west").splitlines()[0]
    assert Invite.from_text(one).site == "west"


@pytest.mark.parametrize(
    ("task", "status", "said"),
    [("done", DONE, ""), ("fail", RUN_FAILED, "quorum not reached in round 3")],
)
def test_a_runs_exit_status_is_that_of_run(
    place: tuple[Folder, Settings], tmp_path: Path, task: str, status: int, said: str
) -> None:
    assert said in command(place[0], "run", config_that(tmp_path, task), status=status)


def test_a_run_is_started_stopped_resumed_and_asked_for(
    place: tuple[Folder, Settings], tmp_path: Path
) -> None:
    folder, _ = place
    started = command(folder, "run", config_that(tmp_path, "hang"), "--detach", "--seed", "3")
    name = str(re.search(r"Run (\S+) is started", started)[1])  # type: ignore[index]
    until((folder.run(name).path / "ready").exists)
    assert name in command(folder, "status")
    facts = json.loads(command(folder, "status", name, "--json"))[0]
    assert (facts["facts"]["state"], facts["status"]["sentence"]) == ("running", "does hang")
    assert RunBook(folder).read(name).seed == 3
    assert f"resume {name}" in command(folder, "stop", name)
    assert f"resume {name}" in command(folder, "status", name)
    assert "is not under way" in command(folder, "stop", name, status=WRONG)
    command(folder, "resume", name, "--detach")
    command(folder, "stop", name)
    assert "there are: " in command(folder, "resume", "other", status=WRONG)
    assert "Is the name right" in command(folder, "stop", "../../etc", status=WRONG)


def test_a_wrong_configuration_or_site_starts_nothing(
    place: tuple[Folder, Settings], tmp_path: Path
) -> None:
    folder, _ = place
    before = folder.run_names()
    path = tmp_path / "wrong.yaml"
    path.write_text(CONFIG.to_yaml().replace("rounds:", "ronuds:"), encoding="utf-8")
    assert "Did you mean rounds" in command(folder, "run", str(path), status=WRONG)
    nobody = command(folder, "run", config_that(tmp_path, "done"), "--site", "nobody", status=WRONG)
    assert "Not accepted: nobody" in nobody
    with closing(Operator(folder)) as operator, pytest.raises(Exception, match="name is missing"):
        operator.order("task: {}", Ordered())
    assert folder.run_names() == before


def test_metrics_and_health_tell_no_more_than_they_should(place: tuple[Folder, Settings]) -> None:
    folder, settings = place
    token = {"authorization": f"Bearer {folder.token.read_text(encoding='ascii').strip()}"}
    with httpx.Client(verify=client_context(folder)) as client:
        url = f"https://{settings.operator}"
        assert client.get(f"{url}/healthz").text == "ok\n"
        assert client.get(f"{url}/metrics").status_code == 401
        until(lambda: "wardround_runs" in client.get(f"{url}/metrics", headers=token).text)
        body = {"sites": ["../x"], "hours": 1}
        answer = client.post(f"{url}/api/invites", headers=token, json=body)
        assert (answer.status_code, answer.json()["exit_code"]) == (400, WRONG)
        answer = client.post(
            f"{url}/api/invites", headers=token, json={"sites": ["api-site"], "hours": 1}
        )
        assert Invite.from_text(answer.json()["invites"]["api-site"]).site == "api-site"


def test_a_second_service_on_the_same_folder_is_refused(place: tuple[Folder, Settings]) -> None:
    folder, _ = place
    assert "runs already" in command(folder, "start", status=WRONG)
    assert "it runs" in command(folder, "doctor")


def test_a_reload_shows_a_renewed_certificate_and_ends_nothing(
    place: tuple[Folder, Settings], process: subprocess.Popen[str]
) -> None:
    folder, _ = place
    before, text = shown_certificate(place), folder.settings.read_text()
    folder.server_key.unlink()  # as after a person's mishap
    process.send_signal(signal.SIGHUP)
    until(lambda: shown_certificate(place) != before)
    command(folder, "status")
    try:
        folder.settings.write_text(text.replace("name:", "nmae:"))
        process.send_signal(signal.SIGHUP)
        until(lambda: "cannot reload" in (folder.log / "service.jsonl").read_text())
    finally:
        folder.settings.write_text(text)
    assert process.poll() is None


def test_a_service_that_is_told_to_stop_stops_its_runs_in_time(tmp_path: Path) -> None:
    folder, _ = made(tmp_path)
    with service(folder.path) as process:
        command(folder, "run", config_that(tmp_path, "hang"), "--detach")
        until((folder.run("demo").path / "ready").exists)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == DONE
        assert time.monotonic() - start < 5
    entry = RunBook(folder).read("demo")
    assert entry.state == "waiting"
    assert "wardround-coordinator start" in entry.message
    assert "wardround-coordinator start" in command(folder, "status", status=UNREACHABLE)
    assert "goes on" in command(folder, "status", "demo", status=UNREACHABLE)
    assert "wardround-coordinator start" in command(folder, "resume", "demo", status=UNREACHABLE)


def test_a_killed_service_goes_on_with_its_runs_in_its_next_life(tmp_path: Path) -> None:
    folder, settings = made(tmp_path)
    line = command(folder, "invite", "north").splitlines()[0]  # before it ever ran
    with service(folder.path) as process:
        shown = join(folder, settings, line)
        command(folder, "run", config_that(tmp_path, "hang"), "--detach")
        until((folder.run("demo").path / "ready").exists)
        process.kill()
        process.wait(5)
    said = command(folder, "sites", "accept", f"north={shown}")
    assert "holds from its start on" in said
    log = (folder.log / "run-demo.log").read_text()
    orphan = int(re.findall(r"hang as ([0-9]+)", log)[-1])
    with service(folder.path):
        until(lambda: "an earlier process" in RunBook(folder).read("demo").message)
        assert "accepted, not connected" in command(folder, "sites")
        said = command(folder, "resume", "demo", "--detach", status=WRONG)
        assert "is under way" in said
        os.kill(orphan, signal.SIGKILL)  # before, two would work in one folder
        until(lambda: RunBook(folder).read("demo").state == "running")
        command(folder, "stop", "demo")


def test_a_run_is_ordered_for_a_time_and_the_bound_is_read_anew(tmp_path: Path) -> None:
    folder, settings = made(tmp_path)
    with service(folder.path) as process:
        day = (datetime.now(UTC) + timedelta(days=100)).date()
        late = ("--at", f"{day} 22:00", "--priority", "7", "--wait", "--detach")
        command(folder, "run", config_that(tmp_path, "done"), *late)
        entry = RunBook(folder).read("demo")
        assert (entry.priority, entry.waits) == (7, True)
        until(lambda: f"It starts at {day} 22:00" in command(folder, "status"))
        write_settings(folder.settings, settings.model_copy(update={"runs_at_once": 1}))
        process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in (folder.log / "service.jsonl").read_text())
        for _ in range(2):
            command(folder, "run", config_that(tmp_path, "hang"), "--detach")
        until(lambda: "at work demo-2" in RunBook(folder).read("demo-3").message)
        assert "2020-01-01" in command(
            folder, "run", config_that(tmp_path, "done"), "--at", "2020-01-01 12:00", status=WRONG
        )


def test_a_foreign_service_on_the_port_is_not_believed(
    place: tuple[Folder, Settings], tmp_path: Path
) -> None:
    _, settings = place
    mine, _ = made(tmp_path)
    text = mine.settings.read_text().replace("operator: ", f'operator: "{settings.operator}" #')
    mine.settings.write_text(text)
    said = command(mine, "stop", "demo", status=TRUST_REFUSED)
    assert "is not this coordinator's service" in said
