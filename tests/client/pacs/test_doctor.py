"""`wardround-site doctor pacs` and the real Orthanc, set up wrongly in each usual way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.app import app
from client.readiness.check_pacs import examine_pacs
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from common.platform.doctor_finding import Finding
from tests.client.dicom_files import write_labels
from tests.client.pacs.authority import HospitalAuthority
from tests.client.pacs.cohorts import fill
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes

#: As Orthanc comes: anybody is let in and may echo, and a stranger's query is dropped.
AS_IT_COMES = {"DicomAlwaysAllowEcho": True}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Pacs]:
    folder = tmp_path_factory.mktemp("pacs")
    peers = {"WARDROUND": ("127.0.0.1", port)}
    with orthanc(folder, peers=peers, settings=AS_IT_COMES) as pacs:
        fill(pacs, folder / "made", ["P0", "P1"])
        yield pacs


def examined(
    pacs: Pacs, folder: Path, route: str = "dicomweb", patient: str = "P0", **changes: object
) -> Mapping[str, Finding]:
    write_labels(folder, [{"PatientID": patient, "ill": 1}])
    config = SiteConfig(name="north", data=folder, pacs=reaching(pacs, route, **changes))
    found = {finding.check: finding for finding in examine_pacs(config)}
    assert [path.name for path in folder.iterdir()] == ["labels.csv"]  # nothing is left there
    assert all(finding.fix for finding in found.values() if finding.state == "wrong")
    return found


def the_fault(found: Mapping[str, Finding]) -> tuple[str, str]:
    """Return the one thing that is wrong: the check, and all that is said of it."""
    (fault,) = [finding for finding in found.values() if finding.state == "wrong"]
    return fault.check, f"{fault.detail}. {fault.fix}"


@pytest.mark.parametrize("route", ["dicomweb", "c-get", "c-move"])
def test_a_pacs_that_is_set_up_well_is_ready(
    known: Pacs, port: int, tmp_path: Path, route: str
) -> None:
    found = examined(known, tmp_path, route, own_port=port)
    assert {check: finding.state for check, finding in found.items()} == {
        "encryption": "note",
        "folder": "ok",
        "connection": "ok",
        "query": "ok",
        "counts": "ok",
        "retrieval": "ok",
    }
    assert "1 of the first 1 entries" in found["query"].detail


def test_a_data_folder_that_no_pull_could_write_to_is_named(known: Pacs, tmp_path: Path) -> None:
    write_labels(tmp_path, [{"PatientID": "P0", "ill": 1}])
    config = SiteConfig(
        name="north",
        data=Path("/proc/nowhere"),
        labels=tmp_path / "labels.csv",
        pacs=reaching(known),
    )
    check, said = the_fault({finding.check: finding for finding in examine_pacs(config)})
    assert check == "folder"
    assert "cannot write to /proc/nowhere" in said


def test_an_unknown_calling_title_is_no_empty_answer(known: Pacs, tmp_path: Path) -> None:
    found = examined(known, tmp_path, "c-get", own_title="STRANGER")
    assert found["connection"].state == "ok"  # the association itself is let in
    check, said = the_fault(found)
    assert check == "query"
    assert "dropped the query without an answer" in said
    assert "it does not know our title STRANGER: ask the PACS team to register it" in said


def test_an_unknown_calling_title_that_is_rejected_is_named(pacs: Pacs, tmp_path: Path) -> None:
    check, said = the_fault(examined(pacs, tmp_path, "c-get", own_title="STRANGER"))
    assert check == "connection"
    assert "it does not know our title STRANGER" in said


def test_a_wrong_called_title_is_named(known: Pacs, tmp_path: Path) -> None:
    check, said = the_fault(examined(known, tmp_path, "c-get", called_title="OTHER"))
    assert check == "connection"
    assert "does not call itself OTHER. Compare pacs.called_title" in said


def test_an_unregistered_destination_of_c_move_is_named(tmp_path: Path, port: int) -> None:
    # It knows us for queries, at another port: what it moves there arrives nowhere.
    peers = {"WARDROUND": ("127.0.0.1", free_port())}
    with orthanc(tmp_path / "pacs", peers=peers) as pacs:
        fill(pacs, tmp_path / "made", ["P0"])
        (tmp_path / "data").mkdir()
        check, said = the_fault(examined(pacs, tmp_path / "data", "c-move", own_port=port))
    assert check == "retrieval"
    assert "moves nothing to us (C-MOVE status 0xC000)" in said
    assert f"register our AE title WARDROUND with this machine's address and port {port}" in said


def test_an_own_port_that_is_taken_is_named(known: Pacs, tmp_path: Path) -> None:
    check, said = the_fault(examined(known, tmp_path, "c-move", own_port=known.http_port))
    assert check == "route"
    assert f"Cannot listen on port {known.http_port}" in said


def test_a_certificate_without_names_is_told(tmp_path: Path) -> None:
    authority = HospitalAuthority(tmp_path / "ca")
    own, bare = authority.issue("WARDROUND"), authority.issue(with_names=False)
    with orthanc(tmp_path / "pacs", tls=bare, https=bare) as pacs:
        data = tmp_path / "data"
        tls = {
            "tls": True,
            "authority": authority.pem,
            "certificate": own.certificate,
            "key": own.key,
        }
        for route in ("dicomweb", "c-get"):
            check, said = the_fault(examined(pacs, data, route, **tls))
            assert check == "connection"
            assert "names no host (it has no subjectAltName)" in said
            assert "127.0.0.1 in its subjectAltName" in said


def test_another_authority_a_wrong_password_and_a_closed_port_are_told(
    known: Pacs, tmp_path: Path
) -> None:
    authority, other = HospitalAuthority(tmp_path / "ca"), HospitalAuthority(tmp_path / "other")
    data = tmp_path / "data"
    with orthanc(tmp_path / "pacs", https=authority.issue()) as pacs:
        _, said = the_fault(examined(pacs, data, authority=other.pem))
    assert "is not signed by the authority that pacs.authority names" in said
    password = tmp_path / "password"
    password.write_text("wrong")
    password.chmod(0o600)
    _, said = the_fault(examined(known, data, password_file=password))
    assert "does not take the password of wardround" in said
    for changes in ({"port": free_port()}, {"url": f"http://127.0.0.1:{free_port()}/dicom-web"}):
        route = "c-get" if "port" in changes else "dicomweb"
        _, said = the_fault(examined(known, data, route, **changes))
        assert "is not reached: Connection refused" in said


def test_tls_and_plain_are_told_apart(known: Pacs, tmp_path: Path) -> None:
    authority = HospitalAuthority(tmp_path / "ca")
    own, data = authority.issue(), tmp_path / "data"
    tls = {"authority": authority.pem, "certificate": own.certificate, "key": own.key}
    _, said = the_fault(examined(known, data, "c-get", tls=True, **tls))
    assert "does not speak TLS there" in said
    secure = known.url.replace("http:", "https:")
    _, said = the_fault(examined(known, data, url=secure, authority=authority.pem))
    assert "does not speak TLS there" in said
    with orthanc(tmp_path / "pacs", tls=authority.issue(), https=authority.issue()) as pacs:
        _, said = the_fault(examined(pacs, data, "c-get"))
        assert "speaks TLS there. Write tls: true" in said
        _, said = the_fault(examined(pacs, data, url=pacs.url.replace("https:", "http:")))
        assert "speaks TLS there. Write https:" in said


def test_a_table_that_the_pacs_knows_nothing_of_is_a_fault(known: Pacs, tmp_path: Path) -> None:
    check, said = the_fault(examined(known, tmp_path, patient="00P0"))
    assert check == "query"
    assert "0 of the first 1 entries" in said
    assert "leading zeros" in said


def test_a_broken_configuration_is_a_finding_and_not_a_traceback(
    known: Pacs, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    config = reaching(known, user="wardround", password_file=None)
    write_site_config(home.site_yaml, SiteConfig(name="north", data=tmp_path, pacs=config))
    ended = CliRunner().invoke(app, ["doctor", "pacs", "--home", str(home.folder)])
    assert ended.exit_code == 1
    assert "WRONG  connection" in ended.output
    assert "there is no pacs.password_file" in ended.output
    assert "-> Write the password in a file" in ended.output
