"""Strangers at the DICOM port: it stays small, and whoever has something to send is heard."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext

from client.pacs.connection import caller_limits
from client.pacs.connection.caller_limits import CallerLimits
from client.site.pacs_section import PacsConfig
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.orthanc import free_port
from tests.client.pacs.receiving import receive

pytestmark = pytest.mark.processes

LIMITS = CallerLimits(
    connections=12, opening_seconds=2.0, pdu_seconds=2.0, pdu_bytes=1 << 20, kept_bytes=4 << 20
)


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(caller_limits, "LIMITS", LIMITS)
    monkeypatch.setattr("client.pacs.storage_scp.LIMITS", LIMITS)
    pacs = PacsConfig.model_validate(
        {
            "route": "c-get",
            "host": "127.0.0.1",
            "port": 104,
            "called_title": "PEER",
            "own_title": "WARDROUND",
            "own_port": free_port(),
            "own_address": "127.0.0.1",
        }
    )
    with receive(pacs, tmp_path / "arrived", lambda _path: None, only_pacs=False) as found:
        yield found


@pytest.fixture
def sent(port: int, tmp_path: Path) -> Iterator[None]:
    """Whatever strangers did, an object arrives afterwards."""
    yield
    path = save(tmp_path / "one.dcm", image(noise(64, 64)))
    assert _arrives(port, path)
    assert len(list((tmp_path / "arrived").rglob("*.dcm"))) == 1


def _arrives(port: int, path: Path) -> bool:
    dataset = dcmread(path)
    entity = AE("PEER")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="WARDROUND")
    assert association.is_established
    try:
        return bool(association.send_c_store(dataset).get("Status", -1) == 0)
    finally:
        association.release()


def strangers(port: int, count: int) -> list[socket.socket]:
    return [
        socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0), timeout=5)
        for _ in range(count)
    ]


def is_ended(sock: socket.socket) -> bool:
    """Return whether the other side ends the connection within 20 s, whatever it says before."""
    sock.settimeout(20)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def request() -> bytes:
    """Return an A-ASSOCIATE-RQ as pynetdicom makes it."""
    found: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        sock, _ = server.accept()
        found.append(sock.recv(65536))
        sock.close()

    thread = threading.Thread(target=take)
    thread.start()
    entity = AE("PEER")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.7")
    entity.associate("127.0.0.1", server.getsockname()[1], ae_title="WARDROUND")
    thread.join()
    server.close()
    A_ASSOCIATE_RQ().decode(found[0])
    return found[0]


@pytest.mark.slow
@pytest.mark.usefixtures("sent")
def test_connections_that_become_no_association_are_bounded_and_end(port: int) -> None:
    before = threading.active_count()
    found = strangers(port, 60)
    time.sleep(0.5)
    assert threading.active_count() - before < 4 * LIMITS.connections
    for sock in found:
        assert is_ended(sock)
        sock.close()


@pytest.mark.slow
@pytest.mark.usefixtures("sent")
def test_connections_that_hang_up_at_once_turn_nobody_away(port: int) -> None:
    for _ in range(5 * LIMITS.connections):
        for sock in strangers(port, 1):
            sock.close()
    (sock,) = strangers(port, 1)
    with sock:
        sock.sendall(request())
        assert sock.recv(1) == b"\x02"  # A-ASSOCIATE-AC


@pytest.mark.usefixtures("sent")
def test_a_connection_takes_no_presentation_context_apart(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each costs 0.17 s before a word is said, and sixty strangers cost the PACS ten."""
    asked = request()
    taken: list[PresentationContext] = []

    def take(context: PresentationContext, _memo: object) -> PresentationContext:
        taken.append(context)
        return context

    monkeypatch.setattr(PresentationContext, "__deepcopy__", take, raising=False)
    (sock,) = strangers(port, 1)
    with sock:
        sock.sendall(asked)
        assert sock.recv(1) == b"\x02"  # A-ASSOCIATE-AC
    assert not taken


@pytest.mark.slow
@pytest.mark.usefixtures("sent")
def test_a_pdu_that_says_it_has_four_gigabytes_is_not_waited_for(port: int) -> None:
    (sock,) = strangers(port, 1)
    sock.sendall(struct.pack(">BBL", 1, 0, 0xFFFF_FFF0))
    assert is_ended(sock)
    sock.close()


@pytest.mark.slow
@pytest.mark.usefixtures("sent")
def test_a_request_that_comes_byte_by_byte_ends(port: int) -> None:
    (sock,) = strangers(port, 1)
    with contextlib.suppress(OSError):
        for byte in request()[:200]:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)
    assert is_ended(sock)
    sock.close()


@pytest.mark.slow
@pytest.mark.usefixtures("sent")
def test_a_message_without_an_end_takes_no_more_memory_than_it_may(port: int) -> None:
    (sock,) = strangers(port, 1)
    sock.sendall(request())
    assert sock.recv(1) == b"\x02"  # A-ASSOCIATE-AC
    value = b"\x01\x00" + bytes(100_000)  # context 1, a data set's fragment, not the last
    item = struct.pack(">L", len(value)) + value
    pdu = struct.pack(">BBL", 4, 0, len(item)) + item
    sock.settimeout(60)
    flood = pdu * 2000  # 200 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConnectionError):
        sock.sendall(flood)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    sock.close()
