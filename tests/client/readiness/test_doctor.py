from __future__ import annotations

import json
import shutil
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.governance.disclosures import Disclosure, Disclosures
from client.privacy.ledger import Ledger, Limit
from client.readiness import check_link as link
from client.readiness import check_machine as machine
from client.readiness.doctor import Finding, examine
from server.enrolment.certificates import server_context
from tests.client.coordinators import Front, authority_in, front
from tests.client.dicom_files import image, noise, save, write_labels
from tests.client.ordinary_user import as_ordinary_user
from tests.client.policies import run_of
from tests.client.terminals import Site
from tests.privacy.made_up import charged, mechanism_of

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("coordinator")) as found:
        yield found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    save(found.data / "1.dcm", image(noise(16, 16)))
    write_labels(found.data, [{"PatientID": "P1", "malignant": 1}])
    return found


@pytest.fixture
def joined(site: Site, coordinator: Front) -> Site:
    name = f"site-{len(coordinator.enrolment.sites())}"
    assert site.types("join", coordinator.invite(name), "--data", site.data).status == 0
    return site


def findings(site: Site) -> dict[str, Finding]:
    """Return what was found by check; of several findings of one check the worst."""
    order = ("ok", "note", "wrong")
    found: dict[str, Finding] = {}
    for finding in examine(site.home):
        before = found.get(finding.check)
        if before is None or order.index(finding.state) >= order.index(before.state):
            found[finding.check] = finding
    return found


def wrong(site: Site) -> dict[str, Finding]:
    found = {name: f for name, f in findings(site).items() if f.state == "wrong"}
    assert all(finding.fix for finding in found.values()), found
    return found


@pytest.mark.processes
def test_a_site_that_joined_and_was_accepted_has_nothing_to_mend(
    joined: Site, coordinator: Front
) -> None:
    name = joined.home.coordinator_json.read_text().partition('"site": "')[2].partition('"')[0]
    assert findings(joined)["enrolment"].state == "note"
    coordinator.accept(name, joined.home.public_key.read_text().strip())
    found = findings(joined)
    assert {n for n, f in found.items() if f.state == "wrong"} == set()
    assert found["enrolment"].state == "ok"
    assert {"packages", "key", "network", "TLS", "clock", "disk", "GPU", "cohort"} <= set(found)
    assert "1 file in" in found["cohort"].detail
    assert "1 row in" in found["cohort"].detail
    ended = joined.types("doctor")
    assert (ended.status, ended.out.endswith("Ready.\n")) == (0, True)


def test_a_machine_without_a_site_is_told_to_join(site: Site) -> None:
    found = wrong(site)
    assert set(found) == {"site.yaml", "joined"}
    assert all("wardround-site join INVITE" in f.fix for f in found.values())


@pytest.mark.processes
def test_a_coordinator_that_is_down_is_one_fault_not_three(site: Site, tmp_path: Path) -> None:
    with front(tmp_path / "c") as gone:
        site.types("join", gone.invite(), "--data", site.data)
    found = wrong(site)
    assert set(found) == {"network"}
    assert "wardround-coordinator status" in found["network"].fix


@pytest.mark.processes
def test_somebody_else_at_the_address_is_told_apart_from_nobody(site: Site, tmp_path: Path) -> None:
    with front(tmp_path / "c") as real:
        site.types("join", real.invite(), "--data", site.data)
    other = authority_in(tmp_path / "other")
    with front(tmp_path, folder=other) as between:
        content = site.home.coordinator_json.read_text()
        changed = content.replace(real.address, between.address)
        site.home.coordinator_json.write_text(changed)
        found = wrong(site)
    assert set(found) == {"TLS", "enrolment"}
    assert "do not go on, call them" in found["TLS"].fix


@pytest.mark.processes
def test_older_tls_at_the_address_is_told(site: Site, tmp_path: Path) -> None:
    folder = authority_in(tmp_path / "c")
    context = server_context(folder)
    with front(tmp_path, folder=folder, context=context) as found:
        site.types("join", found.invite(), "--data", site.data)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "TLS" in wrong(site)


def test_a_revoked_site_is_told(joined: Site, coordinator: Front) -> None:
    name = joined.home.coordinator_json.read_text().partition('"site": "')[2].partition('"')[0]
    coordinator.enrolment.revoke(name)
    assert "revoked" in wrong(joined)["enrolment"].detail + wrong(joined)["enrolment"].fix


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (0.0, "ok"),
        (4.0, "ok"),
        (-200.0, "ok"),
        (6.0, "wrong"),
        (3600.0, "wrong"),
        (-3600.0, "wrong"),
    ],
)
def test_a_clock_is_judged_as_the_coordinator_judges_requests(ahead: float, state: str) -> None:
    finding = link.clock(ahead)
    assert finding.state == state
    assert state == "ok" or "timedatectl" in finding.fix
    assert link.clock(None).state == "note"


@pytest.mark.parametrize(("free", "state"), [(0.2, "wrong"), (5.0, "note"), (50.0, "ok")])
def test_a_full_disk_is_told_before_it_is_full(free: float, state: str) -> None:
    finding = machine.room(free, "/srv/site", "/srv/site/cache")
    assert (finding.state, bool(finding.fix)) == (state, state == "wrong")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_may_read_is_told_with_the_command_that_mends_it(
    joined: Site, mode: int
) -> None:
    joined.home.key.chmod(mode)
    assert wrong(joined)["key"].fix == f"chmod 600 {joined.home.key}"
    joined.home.key.chmod(0o600)
    joined.home.folder.chmod(0o755)
    assert wrong(joined)["key"].fix == f"chmod 700 {joined.home.folder}"


def test_a_key_that_is_no_key_is_told(joined: Site) -> None:
    joined.home.key.write_text("hello")
    joined.home.key.chmod(0o600)
    assert {"key", "enrolment"} <= set(wrong(joined))


def test_missing_images_and_labels_are_told(joined: Site) -> None:
    (joined.data / "labels.csv").unlink()
    assert "labels.csv" in wrong(joined)["cohort"].detail
    shutil.rmtree(joined.data)
    assert "Mount it" in wrong(joined)["cohort"].fix


def test_images_that_this_user_may_not_read_are_told(joined: Site) -> None:
    (joined.data / "1.dcm").chmod(0)
    found = as_ordinary_user(lambda: wrong(joined))
    assert "may not read" in found["cohort"].detail


def test_a_gpu_that_is_asked_for_and_a_memory_that_is_not_there_are_told(joined: Site) -> None:
    import torch

    name = joined.home.coordinator_json.read_text().partition('"site": "')[2].partition('"')[0]
    joined.set_up(name=name, device="cuda", memory_gib=1e6)
    found = wrong(joined)
    assert ("GPU" in found) is not torch.cuda.is_available()
    assert "smaller memory_gib" in found["memory"].fix


def test_records_that_were_changed_are_told_and_stop_no_other_check(joined: Site) -> None:
    log = Disclosures(joined.home.disclosures)
    for number in range(3):
        log.record(
            Disclosure(
                kind="update", to="c", run="r", round=number, bytes=1, sha256=f"{number:064x}"
            )
        )
    ledger, limit = Ledger(joined.home.ledger), Limit(epsilon=8.0, delta=1e-5)
    charged(ledger, "patients", "run", 1, mechanism_of(5.0), limit, 1e-5)
    assert not {"ledger", "disclosures"} & set(wrong(joined))
    text = joined.home.disclosures.read_text()
    joined.home.disclosures.write_text(text.replace('"bytes": 1', '"bytes": 2', 1))
    with closing(sqlite3.connect(joined.home.ledger)) as connection:
        connection.execute("DROP TRIGGER no_update")
        connection.execute("UPDATE charges SET run = 'other'")
        connection.commit()
    found = findings(joined)
    assert found["disclosures"].state == found["ledger"].state == "wrong"
    assert "line 1" in found["disclosures"].detail
    joined.asked("breast-1", run_of())
    assert findings(joined)["approvals"].fix == "wardround-site runs"


def test_another_package_called_common_is_told(
    joined: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "lib" / "other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("common\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    finding = wrong(joined)["packages"]
    assert "also of other" in finding.detail
    assert "virtual environment" in finding.fix


def test_the_doctor_as_json_is_one_line_a_finding(joined: Site) -> None:
    lines = [json.loads(line) for line in joined.types("doctor", "--json").out.splitlines()]
    assert {"check", "state", "detail", "fix"} == set(lines[0])


def test_the_doctor_tells_the_coordinator_nothing_but_who_asks(
    joined: Site, coordinator: Front
) -> None:
    before = len(coordinator.asked)
    list(examine(joined.home))
    asked = coordinator.asked[before:]
    assert [(m, p) for m, p, _ in asked] == [
        ("GET", "/wardround/ca"),
        ("POST", "/wardround/joined"),
    ]
    assert set(json.loads(asked[1][2])) == {"site", "public_key", "signature"}
