"""Envelopes inside Flower's messages: built of its objects, and read back one object at a time.

Flower keeps a message as a tree of objects named by their SHA-256: the message, its records, and
chunks of bytes. What is the same in two messages is stored, and sent, once; after a cut only
missing objects travel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_object_head_values_from_object_content,
    iterate_object_tree,
)

from common.envelope import Envelope
from common.errors import UpdateRefused

_MESSAGE, _FRAMES = "message", "frames"
#: Says to Flower that the bytes are no array of its own.
_FORM = "wardround-frame"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A message's envelope, its frames still to be read."""

    header: str
    signature: bytes
    frames: Callable[[], Iterator[bytes]]  # reads them anew, one at a time


def record_of(envelope: Envelope) -> RecordDict:
    """Return an envelope as the content of a Flower message."""
    facts = {"header": envelope.header, "signature": envelope.signature.hex()}
    frames = {
        f"{number:06d}": Array(dtype="uint8", shape=(len(frame),), stype=_FORM, data=frame)
        for number, frame in enumerate(envelope.frames)
    }
    return RecordDict({_MESSAGE: ConfigRecord({**facts}), _FRAMES: ArrayRecord(frames)})


def object_ids(tree: ObjectTree) -> list[str]:
    """Return the names of all objects of a message."""
    return list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))


def open_objects(read: Callable[[str], bytes], root: str) -> Opened:
    """Return a message's envelope from its objects; UpdateRefused where they are not one.

    `read` gives an object's content by name.
    """
    try:
        _, children, _ = _parts(read(root), "Message")
        records = json.loads(_parts(read(children[0]), "RecordDict")[2])
        facts = ConfigRecord.inflate(read(records[_MESSAGE]))
        frames = json.loads(_parts(read(records[_FRAMES]), "ArrayRecord")[2])
        return Opened(
            header=str(facts["header"]), signature=bytes.fromhex(str(facts["signature"])),
            frames=lambda: (_frame(read, frames[name]) for name in sorted(frames)),
        )  # fmt: skip
    except (KeyError, IndexError, ValueError, TypeError) as error:
        message = f"A message from Flower is none of ours: {error!s:.200}"
        raise UpdateRefused(message) from error


def _frame(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        _, chunks, body = _parts(read(name), "Array")
        places = json.loads(body)["arraychunk_ids"]
        return b"".join(_parts(read(chunks[place]), "ArrayChunk")[2] for place in places)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        message = f"A frame from Flower cannot be read: {error!s:.200}"
        raise UpdateRefused(message) from error


def _parts(content: bytes, expected: str) -> tuple[str, list[str], bytes]:
    """Return an object's kind, the names of its children, and its body."""
    kind, children, length = get_object_head_values_from_object_content(content)
    if kind != expected:
        message = f"an object is {kind}, expected {expected}"
        raise ValueError(message)
    return kind, children, content[len(content) - length :]
