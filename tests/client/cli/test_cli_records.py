from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from client.cli.app import app
from client.governance.disclosures import Disclosure, Disclosures
from client.privacy.ledger import Ledger, Limit
from client.transport.coordinator import Coordinator
from common.config.run_config import RunConfig
from common.messages.signing_key import fingerprint, new_private_key, private_text, public_text
from common.platform.file_lock import FileLock
from tests.client.coordinators import front
from tests.client.dicom_files import image, noise, save, write_labels
from tests.client.policies import run_of
from tests.client.terminals import COMMAND, RUNNER, Site, environment
from tests.privacy.made_up import charged, mechanism_of


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_site_that_does_not_run_says_what_to_type(site: Site) -> None:
    site.set_up()
    ended = site.types("status")
    assert ended.status == 7
    assert "not running" in ended.out
    assert "Next: wardround-site join INVITE" in ended.out
    joined = Coordinator(address="c.example:8443", name="c", site="east", fingerprint="ab" * 32)
    joined.note(site.home)
    assert "Next: wardround-site start" in site.types("status").out


def test_the_status_says_the_fingerprint_that_the_coordinator_asks_for(site: Site) -> None:
    site.set_up()
    assert json.loads(site.types("status", "--json").out)["fingerprint"] == ""
    key = new_private_key()
    site.home.key.write_text(private_text(key))
    known = fingerprint(public_text(key))
    assert known in site.types("status").out
    assert json.loads(site.types("status", "--json").out)["fingerprint"] == known


def test_a_federation_that_was_joined_beside_a_running_daemon_is_not_starting(site: Site) -> None:
    site.set_up()
    lung = site.home.of("lung")
    for home, name in ((site.home, "east"), (lung, "est")):
        home.folder.mkdir(parents=True, exist_ok=True)
        Coordinator(address="c.example:1", name="c", site=name, fingerprint="ab" * 32).note(home)
    site.home.status.write_text(json.dumps({"state": "waiting"}))
    with FileLock(site.home.lock):
        first, second = map(json.loads, site.types("status", "--json").out.splitlines())
        assert (first["state"], second["state"]) == ("waiting", "not_served")
        assert second["site"] == "est"
        assert "stop it, and start it again" in " ".join(site.types("status").out.split())


def test_records_that_name_nothing_missing_have_a_whole_chain(site: Site) -> None:
    site.set_up()
    log = Disclosures(site.home.disclosures)
    for number in range(3):
        log.record(
            Disclosure(kind="update", to="c", run="r", round=number, bytes=1, sha256=f"{number}")
        )
    assert site.types("records").status == 0
    text = site.home.disclosures.read_text()
    site.home.disclosures.write_text(text.replace('"round": 1', '"round": 9'))
    ended = site.types("records")
    assert ended.status == 5
    assert "line 2 does not fit" in " ".join(ended.err.split())


def test_the_status_of_a_daemon_that_was_killed_is_not_taken_for_one_that_runs(site: Site) -> None:
    site.set_up()
    site.home.lock.touch()
    site.home.status.write_text(json.dumps({"state": "working", "sentence": "round 3"}))
    ended = site.types("status", "--json")
    assert ended.status == 7
    assert json.loads(ended.out)["state"] == "stopped"
    assert "round 3" not in ended.out


def test_the_status_says_what_is_done_since_when_and_what_waits(site: Site) -> None:
    site.set_up()
    site.asked("breast-1", run_of())
    since = (datetime.now(UTC) - timedelta(minutes=5, seconds=3)).isoformat()
    site.home.status.write_text(
        json.dumps(
            {
                "state": "working",
                "sentence": "training run breast-0, round 3",
                "since": since,
                "bytes_sent": 1500,
                "bytes_received": 2_500_000,
            }
        )
    )
    with site.home.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = site.types("status")
        content = json.loads(site.types("status", "--json").out)
    assert ended.status == 0
    assert "training run breast-0, round 3 (for 5 minutes)" in ended.out
    assert "1.5 kB sent, 2.5 MB received" in ended.out
    assert "1 run waits for your answer: wardround-site runs" in ended.out
    assert content["state"] == "working"
    assert content["waiting_for_approval"] == 1


@pytest.mark.processes
def test_a_mistake_in_site_yaml_is_shown_beside_what_the_daemon_goes_on_doing(
    site: Site, tmp_path: Path
) -> None:
    with front(tmp_path / "c") as coordinator:
        site.types("join", coordinator.invite(), "--data", site.data)
    text = site.home.site_yaml.read_text()
    site.home.site_yaml.write_text(text.replace("private_only", "privat_only"))
    site.home.status.write_text(json.dumps({"state": "waiting", "sentence": "connected"}))
    assert site.types("status").status == 2
    with site.home.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = site.types("status")
        mistake = json.loads(site.types("status", "--json").out)["mistake"]
    assert ended.status == 0
    assert re.search(r"now +connected\n", ended.out)
    assert "stays in force, because of a mistake" in ended.out
    assert "Did you mean private_only?" in mistake


def test_pausing_is_a_file_that_the_daemon_sees_and_resuming_removes_it(site: Site) -> None:
    site.set_up()
    assert "wardround-site resume" in site.types("pause").out
    assert site.home.paused.exists()
    assert "Paused" in site.types("status").out
    site.types("resume")
    assert not site.home.paused.exists()
    assert "was not paused" in site.types("resume").out


def test_a_budget_tells_spent_limit_left_and_each_run(site: Site) -> None:
    site.set_up()
    assert "Nothing was spent yet; the limit is epsilon 8" in site.types("budget").out
    assert not site.home.ledger.exists()
    limit = Limit(epsilon=8.0, delta=1e-5)
    ledger = Ledger(site.home.ledger)
    first = charged(ledger, "patients", "one", 1, mechanism_of(5.0, steps=3), limit, 1e-5)
    last = charged(ledger, "patients", "two", 1, mechanism_of(4.0, steps=3), limit, 1e-5)
    content = json.loads(site.types("budget", "--json").out)
    told = content["cohorts"]["patients"]
    assert told["spent"] == pytest.approx(last.cohort_epsilon)
    assert told["left"] == pytest.approx(8.0 - last.cohort_epsilon)
    assert told["runs"]["one"] == pytest.approx(first.cohort_epsilon)
    assert f"{last.cohort_epsilon:.3g}" in site.types("budget").out


def told(number: int) -> Disclosure:
    return Disclosure(
        kind="update",
        to="c",
        run="breast-1",
        round=number,
        bytes=1500,
        sha256=f"{number:064x}",
        epsilon=0.5,
    )


def test_disclosures_are_listed_and_verified_offline(site: Site) -> None:
    site.set_up()
    assert "Nothing has left" in site.types("disclosures", "list").out
    log = Disclosures(site.home.disclosures)
    for number in range(1, 31):
        log.record(told(number))
    listed = site.types("disclosures", "list").out
    assert "The last 20 of 30" in listed
    assert listed.count("1.5 kB") == 20
    assert "  update  what training changed in the network" in listed
    assert "at delta 1e-05" in listed
    assert "standing" not in listed
    assert site.types("disclosures", "list", "--all").out.count("1.5 kB") == 30
    lines = site.types("disclosures", "list", "--json").out.splitlines()
    assert json.loads(lines[0])["round"] == 1
    verified = site.types("disclosures", "verify")
    assert (verified.status, "30 messages, the chain holds" in verified.out) == (0, True)
    head = json.loads(lines[-1])["hash"]
    assert site.types("disclosures", "verify", head).status == 0


@pytest.mark.parametrize("words", [("verify",), ("list",)])
def test_a_changed_disclosure_ends_with_its_line_and_a_status(
    site: Site, words: tuple[str, ...]
) -> None:
    site.set_up()
    log = Disclosures(site.home.disclosures)
    for number in range(1, 4):
        log.record(told(number))
    text = site.home.disclosures.read_text()
    site.home.disclosures.write_text(text.replace('"round": 2', '"round":  2'))
    ended = site.types("disclosures", *words)
    assert (ended.status, "line 2" in ended.err) == (5, True)


def test_what_has_left_is_shown_without_a_word_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.set_up()
    Disclosures(site.home.disclosures).record(told(1))
    monkeypatch.setenv("WARDROUND_SITE", str(site.home.folder))
    assert "1.5 kB" in RUNNER.invoke(app, ["disclosures"]).stdout


@pytest.mark.processes
def test_a_reader_who_has_seen_enough_gets_no_trace(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.set_up()
    log = Disclosures(site.home.disclosures)
    for number in range(1, 400):
        log.record(told(number))
    words = ["disclosures", "list", "--all", "--home", str(site.home.folder)]
    line = " ".join(f"'{w}'" for w in [sys.executable, "-c", COMMAND, *words])
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -1"],  # noqa: S607
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.count("\n") == 1


def test_a_unit_is_printed_or_written_with_the_steps_that_install_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "wardround-site"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    site.set_up()
    assert "NoNewPrivileges=yes" in site.types("service").out
    out = tmp_path / "unit.service"
    ended = site.types("service", "--user", "daemon", "--out", out)
    assert "User=daemon" in out.read_text()
    assert "systemctl enable --now wardround-site" in ended.out


# --- looking at the patients -----------------------------------------------------------------


def test_indexing_counts_what_can_be_used_and_says_why_the_rest_cannot(site: Site) -> None:
    for number in range(3):
        save(site.data / f"{number}.dcm", image(noise(16, 16, seed=number), f"P{number}"))
    (site.data / "broken.dcm").write_bytes(b"nothing")
    (site.data / "empty.dcm").touch()
    site.set_up()
    ended = site.types("index")
    assert ended.status == 0, ended.text
    assert "3 images of 3 patients can be used" in ended.out
    assert re.search(r"1 x +EMPTY_FILE +The file has no content", ended.out)
    assert "empty.dcm" not in ended.out
    assert "empty.dcm" in site.types("index", "--all").out


def test_indexing_for_a_run_leaves_its_images_prepared(site: Site, tmp_path: Path) -> None:
    for number in range(4):
        save(site.data / f"{number}.dcm", image(noise(16, 16, seed=number), f"P{number}"))
    write_labels(
        site.data, [{"PatientID": f"P{number}", "malignant": number % 2} for number in range(4)]
    )
    site.set_up()
    path = tmp_path / "run.yaml"
    content = yaml.safe_load(run_of().to_yaml())
    content["cohort"] |= {"table": None, "confounder": None}
    content["cohort"]["split"]["column"] = None
    path.write_text(RunConfig.model_validate(content).to_yaml())
    ended = site.types("index", path)
    assert ended.status == 0, ended.text
    assert "4 patients with 4 items can be used for breast" in ended.out
    assert len(list((site.home.cache / "items").rglob("*.npy"))) >= 4
