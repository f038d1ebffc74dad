from __future__ import annotations

import ssl
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from common.platform.errors import TrustRefused
from server.enrolment.certificates import (
    RENEWAL,
    Authority,
    authority_hash,
    client_context,
    now,
    read_certificate,
    renew_if_due,
    server_context,
)
from server.files.folder import Folder
from tests.peers import program

HOSTS = ("coordinator.example", "192.0.2.7")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    authority = Authority.create("breast-study", now())
    authority.save(folder)
    authority.issue(folder, HOSTS, now())
    return folder


@pytest.mark.processes
def test_openssl_accepts_the_chain_by_its_strict_rules(folder: Folder) -> None:
    said = subprocess.run(
        [
            program("openssl"),
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            "coordinator.example",
            "-CAfile",
            str(folder.ca),
            str(folder.server),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    shown = subprocess.run(
        [program("openssl"), "x509", "-in", str(folder.ca), "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = shown.stdout.split("=")[1].strip().replace(":", "").lower()
    assert authority_hash(folder.ca.read_bytes()) == expected


def test_the_server_signs_with_p256_and_a_slower_key_is_renewed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not renew_if_due(folder, HOSTS, now())
    monkeypatch.setattr("server.enrolment.certificates._SERVER_CURVE", ec.SECP384R1)
    assert renew_if_due(folder, HOSTS, now())
    monkeypatch.undo()
    assert renew_if_due(folder, HOSTS, now())
    key = read_certificate(folder.server_key).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


def test_the_certificate_names_the_given_hosts_and_this_machine(folder: Folder) -> None:
    names = read_certificate(folder.server).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["coordinator.example", "localhost"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == [
        "192.0.2.7",
        "127.0.0.1",
    ]


def test_keys_can_be_read_by_their_owner_only(folder: Folder) -> None:
    for path in (folder.ca_key, folder.server_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_listeners_and_commands_speak_tls_1_3_only(folder: Folder) -> None:
    assert server_context(folder).minimum_version is ssl.TLSVersion.TLSv1_3
    context = client_context(folder)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_certificate_is_renewed_before_it_ends_or_when_a_host_is_new(folder: Folder) -> None:
    first = folder.server.read_bytes()
    assert not renew_if_due(folder, HOSTS, now())
    assert folder.server.read_bytes() == first
    end = read_certificate(folder.server).not_valid_after_utc
    assert renew_if_due(folder, HOSTS, end - RENEWAL + timedelta(minutes=1))
    assert folder.server.read_bytes() != first
    assert renew_if_due(folder, [*HOSTS, "another.example"], now())
    folder.server_key.unlink()
    assert renew_if_due(folder, HOSTS, now())
    server_context(folder)


def test_a_clock_behind_by_a_day_still_accepts_a_new_certificate(folder: Folder) -> None:
    for path in (folder.ca, folder.server):
        assert read_certificate(path).not_valid_before_utc <= now() - timedelta(hours=23)


def test_no_server_certificate_outlives_its_authority(folder: Folder) -> None:
    authority = Authority.load(folder)
    end = authority.certificate.not_valid_after_utc
    authority.issue(folder, HOSTS, end - timedelta(days=3))
    assert read_certificate(folder.server).not_valid_after_utc == end


def test_a_missing_or_foreign_file_is_named(folder: Folder) -> None:
    folder.ca_key.write_bytes(folder.ca.read_bytes())
    with pytest.raises(TrustRefused, match=r"ca\.key"):
        Authority.load(folder)
    folder.ca.unlink()
    with pytest.raises(TrustRefused, match=r"ca\.pem cannot be used: No such file"):
        read_certificate(folder.ca)
