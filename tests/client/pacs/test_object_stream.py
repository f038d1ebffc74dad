"""PDUs of a C-GET are read as the standard writes them, and whatever else comes ends it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from struct import pack
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dsutils import decode, encode

from client.pacs.cfind import GET
from client.pacs.connection.object_stream import Answer, ObjectStream, StreamBroken
from tests.client.dicom_files import image, noise

pytestmark = pytest.mark.processes

EXPLICIT = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Peer:
    """The other end of a connection, which was told what to say."""

    stream: ObjectStream
    sock: socket.socket
    ours: socket.socket
    took: list[tuple[str, str, bytes]] = field(default_factory=list)

    def answers(self, said: bytes, *, leave: bool = False) -> list[Answer]:
        self.sock.sendall(said)
        self.sock.shutdown(socket.SHUT_WR)

        def take(sop_class: str, instance: str, content: Iterator[bytes]) -> int:
            content = iter([next(content)]) if leave else content
            self.took.append((sop_class, instance, b"".join(content)))
            return 0xA700 if leave else 0

        asked = Dataset()
        asked.QueryRetrieveLevel = "SERIES"
        return list(self.stream.get(GET, asked, take))

    def heard(self) -> bytes:
        self.ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: self.sock.recv(1 << 16), b""))


def context(number: int, name: str, syntax: str) -> SimpleNamespace:
    made = Dataset()
    made.SOPClassUID = syntax
    return SimpleNamespace(
        context_id=number, abstract_syntax=name, transfer_syntax=[made.SOPClassUID]
    )


@pytest.fixture
def peer() -> Iterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.settimeout(5.0)
    association = SimpleNamespace(
        accepted_contexts=[context(1, GET, EXPLICIT), context(3, CT, EXPLICIT)],
        acceptor=SimpleNamespace(maximum_length=64),
    )
    with ours, theirs:
        stream = ObjectStream(cast("Association", association), ours)
        yield Peer(stream, theirs, ours)
        stream.close()


def pdu(*items: tuple[int, int, bytes], kind: int = 4) -> bytes:
    body = b"".join(pack(">LBB", len(b) + 2, cx, flags) + b for cx, flags, b in items)
    return pack(">BxL", kind, len(body)) + body


def command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    return pack("<HHLL", 0, 0, 4, len(body)) + body


def number(value: int) -> bytes:
    return pack("<H", value)


STORE = command(
    (0x0002, CT.encode() + b"\0"),
    (0x0100, number(1)),
    (0x0110, number(7)),
    (0x0800, number(1)),
    (0x1000, b"1.2.3\0"),
)
DONE = command((0x0100, number(0x8010)), (0x0800, number(0x0101)), (0x0900, number(0)))
FAILED = command(
    (0x0100, number(0x8010)),
    (0x0800, number(1)),
    (0x0900, number(0xB000)),
    (0x1021, number(2)),
    (0x1022, number(3)),
)


def test_a_data_set_in_pieces_is_one_file(peer: Peer) -> None:
    sent = image(noise(16, 16))
    content = encode(sent, False, True)
    assert content is not None
    pieces = [content[n : n + 100] for n in range(0, len(content), 100)]
    said = pdu((3, 1, STORE[:30])) + pdu((3, 3, STORE[30:]))
    said += b"".join(pdu((3, 0, piece)) for piece in pieces) + pdu((3, 2, b""))
    assert peer.answers(said + pdu((1, 3, DONE))) == [Answer(status=0, completed=0, failed=0)]
    ((sop_class, instance, file),) = peer.took
    assert (sop_class, instance) == (CT, "1.2.3")
    got = dcmread(BytesIO(file))
    assert got.file_meta.TransferSyntaxUID == EXPLICIT
    assert got.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert got.PixelData == sent.PixelData


def test_the_question_and_the_answers_are_in_pdus_that_the_peer_takes(peer: Peer) -> None:
    peer.answers(pdu((3, 3, STORE)) + pdu((3, 2, b"pixels")) + pdu((1, 3, DONE)))
    heard, commands, data = BytesIO(peer.heard()), b"", b""
    while head := heard.read(6):
        length = int.from_bytes(head[2:], "big")
        assert length <= 64
        body = heard.read(length)
        if body[5] & 1:
            commands += body[6:]
        else:
            data += body[6:]
    asked = decode(BytesIO(data), False, True)
    assert asked.QueryRetrieveLevel == "SERIES"
    assert GET.encode() in commands
    assert number(0x8001) in commands


def test_failed_objects_are_counted_and_their_list_is_passed_over(peer: Peer) -> None:
    said = pdu((1, 3, FAILED), (1, 2, b"a list of UIDs"))
    assert peer.answers(said) == [Answer(status=0xB000, completed=2, failed=3)]


def test_what_is_not_wanted_of_an_object_is_read_to_its_end(peer: Peer) -> None:
    said = pdu((3, 3, STORE)) + pdu((3, 0, b"a" * 300)) + pdu((3, 2, b"b" * 300))
    assert peer.answers(said + pdu((1, 3, DONE)), leave=True)[-1].status == 0
    assert number(0xA700) in peer.heard()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x04\0\0\0",
        pdu(kind=7),  # it aborts
        pdu(kind=9),
        pack(">BxL", 4, 10) + pack(">LBB", 100, 3, 3) + bytes(4),  # longer than its PDU
        pack(">BxL", 4, 6) + pack(">LBB", 1, 3, 3),  # shorter than its own head
        pdu((3, 3, b"\x08\0\x18\0\xff\xff\0\0")),  # no group 0
        pdu((3, 3, pack("<HHL", 0, 2, 1 << 20))),  # a value that is not there
        pdu((3, 3, pack("<HHL", 0, 2, 0) + b"\0\0\0")),  # half an element's head
        pdu((3, 1, bytes(1 << 17))),  # a command without an end
        pdu((3, 2, b"data without a command")),
        pdu((3, 3, STORE)) + pdu((3, 3, DONE)),  # a command in place of the data
        pdu((5, 3, STORE)) + pdu((5, 2, b"pixels")),  # on a context that was not agreed
        pdu((3, 3, STORE)) + pdu((3, 0, b"pixels")),  # cut
        pdu((1, 3, command((0x0100, number(0x8020)), (0x0800, number(0x0101))))),
    ],
)
def test_whatever_else_comes_ends_the_retrieval(peer: Peer, said: bytes) -> None:
    with pytest.raises(StreamBroken):
        peer.answers(said)
