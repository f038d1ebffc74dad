"""Objects of a C-GET, from the PDUs of our association straight to whoever takes them.

pynetdicom decodes and encodes four command sets and copies each data set six times for an image,
in a thread that wakes every millisecond: 4 to 5 ms of processor. Once an association stands, its
threads end here and the connection is read by hand: PDUs (PS3.8 9.3), command sets (PS3.7 6.3.1 and
9.3), data sets as they are. A peer that leaves Nagle's algorithm on waits for our acknowledgement
in the middle of each image, so none is put off (TCP_QUICKACK), where the system can.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from struct import Struct, pack
from typing import Final

from pydicom.dataset import Dataset
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.association import Association
from pynetdicom.dsutils import encode

_DATA, _RELEASE, _RELEASED, _ABORT = 4, 5, 6, 7  # kinds of PDU
_GET, _GET_ANSWER, _STORE, _STORE_ANSWER = 0x0010, 0x8010, 0x0001, 0x8001  # commands
_NO_DATA_SET: Final = 0x0101
_PENDING = frozenset({0xFF00, 0xFF01})
_LONGEST_UID = 64
_PIECE_BYTES = 1 << 18
#: A command set has a dozen short elements.
_LARGEST_COMMAND = 1 << 16
_HEAD, _ITEM, _ELEMENT = Struct(">BxL"), Struct(">LBB"), Struct("<HHL")
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class StreamBroken(Exception):
    """The peer ended the association, fell silent, or sent what is no DICOM."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One C-GET response (PS3.7 9.3.3.2)."""

    status: int
    completed: int  # sub-operations
    failed: int


#: Takes SOP Class UID, SOP Instance UID and a file's pieces of an object, and returns the status
#: for the peer (PS3.4 table B.2-1). Pieces that are left are passed over.
Take = Callable[[str, str, Iterator[bytes]], int]


@contextmanager
def object_stream(association: Association, seconds: float) -> Iterator[ObjectStream]:
    """Take the connection of an association over; it is closed on leaving.

    `seconds` of silence break it.
    """
    association._reactor_checkpoint.clear()  # noqa: SLF001 - returns once its thread waits
    association.dul.kill_dul()
    association.dul.join()
    transport = association.dul.socket
    if transport is None or transport.socket is None:
        raise StreamBroken
    transport.socket.settimeout(seconds)
    stream = ObjectStream(association, transport.socket)
    try:
        yield stream
        stream.release()
    except BaseException:
        stream.abort()
        raise
    finally:
        stream.close()
        association.kill()
        transport._shutdown_socket()  # noqa: SLF001 - there is no other way in


@dataclass(frozen=True, kw_only=True)
class _Fragment:
    """A piece of a message."""

    context: int  # presentation context ID
    is_command: bool
    is_last: bool
    piece: bytes


class ObjectStream:
    """A connection to a PACS on which it sends objects."""

    def __init__(self, association: Association, sock: socket.socket) -> None:
        self._socket = sock
        self._file = sock.makefile("rb", buffering=_PIECE_BYTES)
        self._syntaxes = {c.context_id: c.transfer_syntax[0] for c in association.accepted_contexts}
        self._contexts = {str(c.abstract_syntax): c for c in association.accepted_contexts}
        self._most = association.acceptor.maximum_length or 0  # bytes of a PDU; 0 for any
        self._message = 0
        self._fragments = self._read()

    def get(self, model: str, asked: Dataset, take: Take) -> Iterator[Answer]:
        """Yield the responses to a C-GET; each object goes to `take` in between.

        StreamBroken when no last response comes.
        """
        self._ask(model, asked)
        while True:
            context, command = self._command()
            code = _number(command, 0x0100)
            if code == _STORE:
                self._take(context, command, take)
                continue
            if code != _GET_ANSWER:
                raise StreamBroken
            if _number(command, 0x0800, _NO_DATA_SET) != _NO_DATA_SET:
                for _ in self._data_set():
                    pass  # UIDs that failed: what is missing shows without them
            answer = Answer(
                status=_number(command, 0x0900),
                completed=_number(command, 0x1021),
                failed=_number(command, 0x1022),
            )
            yield answer
            if answer.status not in _PENDING:
                return

    def release(self) -> None:
        """End it in order (PS3.8 9.3.6); what does not answer is let go."""
        with suppress(OSError):
            self._socket.sendall(_HEAD.pack(_RELEASE, 4) + bytes(4))
            self._socket.settimeout(5.0)
            self._file.read(1)

    def abort(self) -> None:
        """End it at once (PS3.8 9.3.8)."""
        with suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(_HEAD.pack(_ABORT, 4) + bytes(4))

    def close(self) -> None:
        """Let go of the connection, which holds it open."""
        self._file.close()

    def _ask(self, model: str, asked: Dataset) -> None:
        context = self._contexts[model]
        syntax = context.transfer_syntax[0]
        identifier = encode(asked, syntax.is_implicit_VR, syntax.is_little_endian)
        if identifier is None or context.context_id is None:
            message = f"A question for {model} cannot be encoded."
            raise RuntimeError(message)
        self._message += 1
        command = _command_set(
            (0x0002, _uid(model)),
            (0x0100, pack("<H", _GET)),
            (0x0110, pack("<H", self._message)),
            (0x0700, pack("<H", 0)),  # priority: medium
            (0x0800, pack("<H", 1)),  # a data set follows
        )
        self._send(context.context_id, command, is_command=True)
        self._send(context.context_id, identifier, is_command=False)

    def _send(self, context: int, content: bytes, *, is_command: bool) -> None:
        step = max(self._most - 6, 1) if self._most else len(content)
        for first in range(0, len(content), step):
            piece = content[first : first + step]
            last = 2 if first + step >= len(content) else 0
            item = _ITEM.pack(len(piece) + 2, context, is_command | last) + piece
            try:
                self._socket.sendall(_HEAD.pack(_DATA, len(item)) + item)
            except OSError as cause:
                raise StreamBroken from cause

    def _take(self, context: int, command: dict[int, bytes], take: Take) -> None:
        """Hand one object over, read what is left of it, and answer."""
        data_set = self._data_set()
        sop_class, instance = (_text(command.get(number, b"")) for number in (0x0002, 0x1000))
        status = take(sop_class, instance, self._object(context, sop_class, instance, data_set))
        for _ in data_set:
            pass
        answer = _command_set(
            (0x0002, command.get(0x0002, b"")),
            (0x0100, pack("<H", _STORE_ANSWER)),
            (0x0120, command.get(0x0110, bytes(2))),
            (0x0800, pack("<H", _NO_DATA_SET)),
            (0x0900, pack("<H", status)),
            (0x1000, command.get(0x1000, b"")),
        )
        self._send(context, answer, is_command=True)

    def _object(
        self, context: int, sop_class: str, instance: str, data_set: Iterator[bytes]
    ) -> Iterator[bytes]:
        """Yield a file (PS3.10 7.1)."""
        syntax = self._syntaxes.get(context)
        if syntax is None:  # it sends on what was not agreed
            raise StreamBroken
        yield _file_head(sop_class, instance, syntax)
        # Not the data set itself: it would be closed with us, and the rest is still to be read.
        yield from map(bytes, data_set)

    def _command(self) -> tuple[int, dict[int, bytes]]:
        """Return the next command: presentation context, and element -> value."""
        found = b""
        for fragment in self._fragments:
            found += fragment.piece
            if not fragment.is_command or len(found) > _LARGEST_COMMAND:
                break
            if fragment.is_last:
                return fragment.context, _elements(found)
        raise StreamBroken

    def _data_set(self) -> Iterator[bytes]:
        for fragment in self._fragments:
            if fragment.is_command:
                break
            yield fragment.piece
            if fragment.is_last:
                return
        raise StreamBroken

    def _read(self) -> Iterator[_Fragment]:
        while True:
            kind, left = _HEAD.unpack(self._bytes(_HEAD.size))
            if kind != _DATA:
                raise StreamBroken
            while left:
                size, context, flags = _ITEM.unpack(self._bytes(_ITEM.size))
                left -= size + 4
                size -= 2
                if left < 0 or size < 0:
                    raise StreamBroken
                while True:
                    piece = self._bytes(min(size, _PIECE_BYTES))
                    size -= len(piece)
                    yield _Fragment(
                        context=context,
                        is_command=bool(flags & 1),
                        is_last=bool(flags & 2) and not size,
                        piece=piece,
                    )
                    if not size:
                        break

    def _bytes(self, count: int) -> bytes:
        try:
            if _QUICKACK is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)  # holds until the next
            found: bytes = self._file.read(count)
        except OSError as cause:
            raise StreamBroken from cause
        if len(found) < count:
            raise StreamBroken
        return found


def _command_set(*elements: tuple[int, bytes]) -> bytes:
    """Encode elements of group 0 (PS3.7 6.3.1: implicit, little endian)."""
    body = b"".join(_ELEMENT.pack(0, number, len(v)) + v for number, v in elements)
    return _ELEMENT.pack(0, 0, 4) + pack("<L", len(body)) + body


def _elements(content: bytes) -> dict[int, bytes]:
    found, place = {}, 0
    while place < len(content):
        if place + _ELEMENT.size > len(content):
            raise StreamBroken
        group, number, length = _ELEMENT.unpack_from(content, place)
        place += _ELEMENT.size
        if group or place + length > len(content):
            raise StreamBroken
        found[number] = content[place : place + length]
        place += length
    return found


def _number(command: dict[int, bytes], element: int, otherwise: int = 0) -> int:
    value = command.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else otherwise


def _text(value: bytes) -> str:
    return value[:_LONGEST_UID].decode("ascii", "replace").strip(" \0")


def _uid(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + bytes(len(value) % 2)


def _file_head(sop_class: str, instance: str, syntax: str) -> bytes:
    """Return preamble and meta information of a file (PS3.10 table 7.1-1)."""
    elements = b"".join(
        (
            b"\x02\0\x01\0OB\0\0" + pack("<L", 2) + b"\0\1",
            _meta(0x0002, b"UI", _uid(sop_class)),
            _meta(0x0003, b"UI", _uid(instance)),
            _meta(0x0010, b"UI", _uid(syntax)),
            _meta(0x0012, b"UI", _uid(PYNETDICOM_IMPLEMENTATION_UID)),
            _meta(0x0013, b"SH", PYNETDICOM_IMPLEMENTATION_VERSION.encode("ascii").ljust(16)),
        )
    )
    return bytes(128) + b"DICM" + _meta(0x0000, b"UL", pack("<L", len(elements))) + elements


def _meta(element: int, form: bytes, value: bytes) -> bytes:
    return pack("<HH2sH", 2, element, form, len(value)) + value
