"""The PACS of the tests is what a hospital's is: on its own address, and with passwords."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.client.dicom_files import image, noise, save
from tests.client.pacs.authority import HospitalAuthority
from tests.client.pacs.orthanc import Pacs, orthanc
from tests.peers import program

pytestmark = pytest.mark.processes


def test_it_is_reached_on_loopback_only(pacs: Pacs) -> None:
    listening = subprocess.run(
        [program("ss"), "-ltnpH"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    own = [line.split()[3] for line in listening if f"pid={pacs.pid}," in line]
    assert sorted(own) == sorted(f"127.0.0.1:{p}" for p in (pacs.http_port, pacs.dicom_port))


def test_it_asks_for_a_password(pacs: Pacs) -> None:
    assert httpx.get(f"{pacs.url}/studies").status_code == 401


def test_what_was_stored_is_there_after_a_kill(pacs: Pacs, tmp_path: Path) -> None:
    dataset = image(noise(8, 8))
    path = save(tmp_path / "a.dcm", dataset)
    pacs.store([path])
    pacs.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", pacs.dicom_port), timeout=1)
    pacs.start_again()
    assert pacs.file(dataset.SOPInstanceUID) == path.read_bytes()


def test_it_speaks_tls_on_both_ports(tmp_path: Path) -> None:
    authority = HospitalAuthority(tmp_path / "ca")
    with orthanc(tmp_path, tls=authority.issue(), https=authority.issue()) as pacs:
        assert pacs.url.startswith("https:")
        assert isinstance(pacs.rest("/statistics"), dict)
