"""Envelopes inside Flower's messages, read back one object at a time.

Flower keeps a message as a tree of objects named by their SHA-256: the message, its records, and
chunks of bytes. What is the same in two messages is stored, and sent, once; after a cut only
missing objects travel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from google.protobuf.message import DecodeError

from common.messages.signed_envelope import Envelope
from common.platform.bounded_json import Bounds, read_json
from common.platform.errors import AnswerNotAdmitted

#: The name of the record beside the frames, whose names are numbers.
_RECEIPT = "receipt"
#: Objects are files to whoever reads them: a name that is no SHA-256 could be any file's.
_HASH = re.compile("[0-9a-f]{64}")
#: Of a message's records, each with the name of its object.
_RECORDS = Bounds(characters=8 * 1024 * 1024, depth=1, values=100_000)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A message's envelope, its frames still to be read."""

    header: str
    signature: bytes
    frames: Callable[[], Iterator[bytes]]  # reads them anew, one at a time
    frame: Callable[[int], bytes]  # reads one of them anew, by its number from 0
    #: Of common/messages/receipt.py; beside the envelope, so that its bytes stay the same.
    receipt: str = ""


def record_of(envelope: Envelope, receipt: str = "") -> RecordDict:
    """Return an envelope, and a receipt where there is one, as the content of a Flower message.

    One record a frame, the first with the header: each object is a call over the network, so a
    message without tensors, or with few, takes three.
    """
    first, *rest = envelope.frames or (b"",)
    head = ConfigRecord(
        {
            "header": envelope.header,
            "signature": envelope.signature,
            "frames": len(envelope.frames),
            "frame": first,
        }
    )
    records = [head, *(ConfigRecord({"frame": frame}) for frame in rest)]
    content = RecordDict({f"{number:06d}": record for number, record in enumerate(records)})
    return with_receipt(content, receipt)


def with_receipt(content: RecordDict, receipt: str) -> RecordDict:
    """Return a message's content with a receipt beside it; all else is the same objects."""
    if not receipt:
        return content
    return RecordDict({**content, _RECEIPT: ConfigRecord({"receipt": receipt})})


def object_ids(tree: ObjectTree) -> list[str]:
    """Return the names of all objects of a message."""
    return list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))


def open_objects(objects: Callable[[str], bytes], root: str) -> Opened:
    """Return a message's envelope from its objects; AnswerNotAdmitted where they are not one.

    `objects` gives an object's content by name, and is asked for SHA-256s alone.
    """

    def read(name: str) -> bytes:
        if not _HASH.fullmatch(name):
            message = f"an object's name is {name[:80]!r}, expected a SHA-256"
            raise ValueError(message)
        return objects(name)

    try:
        _, children, _ = _parts(read(root), "Message")
        records = _records(_parts(read(children[0]), "RecordDict")[2])
        receipt = _receipt(read, records.pop(_RECEIPT, None))
        names = [records[name] for name in sorted(records)]
        facts = ConfigRecord.inflate(read(names[0]))
        header, signature, count = facts["header"], facts["signature"], facts["frames"]
        if not isinstance(header, str) or not isinstance(signature, bytes):
            message = "its header is no text, or its signature no bytes"
            raise TypeError(message)
        if count not in {len(names), 0}:
            message = f"it has {len(names)} frames, expected {count!r}"
            raise ValueError(message)
        return Opened(
            header=header,
            signature=signature,
            frames=lambda: (_frame(read, name) for name in names if count),
            frame=lambda number: _frame(read, names[number]),
            receipt=receipt,
        )
    except (KeyError, IndexError, ValueError, TypeError, DecodeError) as error:
        message = f"A message from Flower is none of ours: {error!s:.200}"
        raise AnswerNotAdmitted(message) from error


def _records(body: bytes) -> dict[str, str]:
    """Return the object of each record."""
    found = read_json(body.decode(), _RECORDS)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        message = "its records are no names of objects"
        raise TypeError(message)
    return found


def _receipt(read: Callable[[str], bytes], name: str | None) -> str:
    if name is None:
        return ""
    found = ConfigRecord.inflate(read(name))["receipt"]
    if not isinstance(found, str):
        message = f"its receipt is a {type(found).__name__}, expected a text"
        raise TypeError(message)
    return found


def _frame(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        frame = ConfigRecord.inflate(read(name))["frame"]
        if not isinstance(frame, bytes):
            message = f"it is a {type(frame).__name__}, expected bytes"
            raise TypeError(message)
    except (KeyError, ValueError, TypeError, DecodeError) as error:
        message = f"A frame from Flower cannot be read: {error!s:.200}"
        raise AnswerNotAdmitted(message) from error
    return frame


def _parts(content: bytes, expected: str) -> tuple[str, list[str], bytes]:
    """Return an object's kind, the names of its children, and its body."""
    kind, children, length = get_object_head_values_from_object_content(content)
    if kind != expected:
        message = f"an object is {kind}, expected {expected}"
        raise ValueError(message)
    return kind, children, content[len(content) - length :]
