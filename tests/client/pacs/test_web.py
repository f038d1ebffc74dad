"""DICOMweb sessions with the real Orthanc: whom they believe, and why they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from client.pacs.connection.web_session import refusal, web_client, web_session
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError, TrustRefused, Unreachable, WardroundError
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.authority import HospitalAuthority
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> HospitalAuthority:
    return HospitalAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secured(
    tmp_path_factory: pytest.TempPathFactory, authority: HospitalAuthority
) -> Iterator[Pacs]:
    with orthanc(tmp_path_factory.mktemp("https"), https=authority.issue()) as pacs:
        yield pacs


def asked(config: PacsConfig) -> list[object]:
    with web_session(config) as session:
        answer = session.get(f"{config.url}/studies", timeout=10)
        answer.raise_for_status()
        found = answer.json()
    assert isinstance(found, list)
    return found


def said(config: PacsConfig) -> WardroundError:
    with pytest.raises(requests.RequestException) as raised:
        asked(config)
    return refusal(config, raised.value)


def test_dicomweb_client_stores_and_finds(pacs: Pacs, tmp_path: Path) -> None:
    client = web_client(reaching(pacs))
    dataset = image(noise(8, 8), patient="web")
    save(tmp_path / "a.dcm", dataset)
    client.store_instances([dataset])
    found = client.search_for_studies(search_filters={"PatientID": "web"})
    assert [study["0020000D"]["Value"] for study in found] == [[dataset.StudyInstanceUID]]


def test_https_with_the_hospitals_authority(secured: Pacs, authority: HospitalAuthority) -> None:
    assert asked(reaching(secured, authority=authority.pem)) == []


def test_another_authority_is_not_believed_whatever_the_environment_says(
    secured: Pacs, authority: HospitalAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.pem))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority.pem))
    other = HospitalAuthority(tmp_path, "Other")
    error = said(reaching(secured, authority=other.pem))
    assert isinstance(error, TrustRefused)
    assert "is not signed by the authority that pacs.authority names" in str(error)


def test_a_certificate_without_names_is_told(tmp_path: Path, authority: HospitalAuthority) -> None:
    with orthanc(tmp_path, https=authority.issue(with_names=False)) as pacs:
        error = said(reaching(pacs, authority=authority.pem))
    assert isinstance(error, TrustRefused)
    assert "names no host (it has no subjectAltName)" in str(error)


def test_a_wrong_password_is_told(pacs: Pacs, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("another\n")
    with pytest.raises(ConfigurationError, match=r"Others can read .*chmod 600"):
        web_session(reaching(pacs, password_file=password))
    password.chmod(0o600)
    error = said(reaching(pacs, password_file=password))
    assert isinstance(error, TrustRefused)
    assert "does not take the password of wardround" in str(error)
    assert "another" not in str(error)


def test_a_password_file_that_is_missing_is_named(pacs: Pacs, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Cannot read pacs\.password_file .*nowhere"):
        web_session(reaching(pacs, password_file=tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match=r"there is no pacs\.password_file"):
        web_session(reaching(pacs, password_file=None))


def test_no_password_is_sent_in_the_clear(pacs: Pacs) -> None:
    with pytest.raises(ConfigurationError, match="would send the password in the clear"):
        web_session(reaching(pacs, url="http://pacs.hospital.example/dicom-web"))


def test_a_closed_port_is_named(pacs: Pacs) -> None:
    port = free_port()
    error = said(reaching(pacs, url=f"http://127.0.0.1:{port}/dicom-web"))
    assert isinstance(error, Unreachable)
    assert f"127.0.0.1:{port} is not reached: Connection refused" in str(error)


def test_tls_to_a_plain_port_and_the_reverse_are_told(
    pacs: Pacs, secured: Pacs, authority: HospitalAuthority
) -> None:
    tls = pacs.url.replace("http:", "https:")
    error = said(reaching(pacs, url=tls, authority=authority.pem))
    assert isinstance(error, TrustRefused)
    assert "does not speak TLS there" in str(error)
    plain = secured.url.replace("https:", "http:")
    assert "speaks TLS there. Write https:" in str(said(reaching(secured, url=plain)))


def test_a_root_that_is_not_there_is_told(pacs: Pacs) -> None:
    error = said(reaching(pacs, url=pacs.url.replace("dicom-web", "rs")))
    assert isinstance(error, ConfigurationError)
    assert "There is no DICOMweb at" in str(error)
