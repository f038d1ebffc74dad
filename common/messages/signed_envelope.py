"""Envelope of a message: JSON header, signature, packed tensors.

The header names every tensor, so reading takes no more memory than it says, and only after the
frames came. In a file an envelope is one line of JSON with the frames' lengths, then the frames.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from common.messages.message_header import message_of, parts_of
from common.messages.packed_weights import PackedWeights
from common.messages.packing import Encoding, layout_of, pack, unpack
from common.messages.wire import Message
from common.platform.bounded_json import Bounds, check_bounds, read_json
from common.platform.durable_files import replace_durably
from common.platform.errors import AnswerNotAdmitted, StateDamaged, WardroundError

if TYPE_CHECKING:  # as in wire.py
    from common.data.weights import Weights

#: Of an envelope's header: the facts as one text, and a line for each tensor.
HEADER_BOUNDS = Bounds(characters=16 * 1024 * 1024, depth=8, values=200_000)
_FACTS_BOUNDS = Bounds(characters=8 * 1024 * 1024, depth=16, values=1_000_000)
_MOST_FRAMES = 1_000_000
#: A tensor's axes, and how long each can be: to multiply a hundred thousand lengths takes minutes.
_MOST_AXES, _LONGEST_AXIS = 16, 1 << 40
_Shape = Annotated[
    list[Annotated[int, Field(ge=0, le=_LONGEST_AXIS)]], Field(max_length=_MOST_AXES)
]


class _Tensors(BaseModel):
    """What the frames hold: for each part its tensors' names and shapes, and number of frames."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    encoding: Encoding
    parts: dict[str, list[tuple[str, _Shape]]]
    frames: dict[str, Annotated[int, Field(ge=0, le=_MOST_FRAMES)]] = Field(default={})


class _Header(BaseModel):
    """The JSON of an envelope."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    message: str  # of message_headers
    tensors: _Tensors


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A message ready to be sent, or as it came."""

    header: str
    frames: tuple[bytes, ...]
    signature: bytes = b""  # of the sending site over `digest`; empty in requests

    @property
    def size(self) -> int:
        """Bytes of header and frames."""
        return len(self.header.encode()) + sum(map(len, self.frames))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over header and frames, each with its length before it."""
        return digest_of(self.header, self.frames)

    def signed(self, signature: bytes) -> Envelope:
        """Return the envelope with its sender's signature."""
        signed = replace(self, signature=signature)
        vars(signed)["digest"] = self.digest  # of the same header and frames: hashed once
        return signed


def digest_of(header: str, frames: Iterable[bytes]) -> bytes:
    """Return the SHA-256 that a site signs; lengths stand before parts, so none can shift."""
    digest = hashlib.sha256()
    for part in (header.encode(), *frames):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def seal(message: Message, encoding: Encoding = "lossless") -> Envelope:
    """Return a message with its tensors packed; AnswerNotAdmitted where a value does not fit."""
    text, tensors = parts_of(message)
    frames = {part: tuple(pack(weights, encoding)) for part, weights in tensors.items()}
    header = _Header(
        message=text,
        tensors=_Tensors(
            encoding=encoding,
            parts={part: layout_of(weights) for part, weights in tensors.items()},
            frames={part: len(packed) for part, packed in frames.items()},
        ),
    )
    together = tuple(frame for packed in frames.values() for frame in packed)
    return Envelope(header=header.model_dump_json(), frames=together)


def unseal(
    header: str, frames: Iterable[bytes], again: Callable[[int], bytes] | None = None
) -> Message:
    """Return the message; AnswerNotAdmitted says what is no message of ours.

    Frames are taken one at a time and let go, so the packed form is never whole in memory. Where
    `again` gives a frame by its number at any later time, nor are the tensors: they stay packed.
    """
    try:
        read = _read_header(header)
        source, place = iter(frames), 0
        tensors: dict[str, Weights] = {}
        encoding = read.tensors.encoding
        for part, layout in read.tensors.parts.items():
            count = read.tensors.frames.get(part, 0)
            own = _first(source, count)
            if again is None:
                tensors[part] = unpack(layout, own, encoding)
            else:
                tensors[part] = PackedWeights(layout, own, encoding, _from(again, place))
            place += count
        if next(source, None) is not None:
            raise AnswerNotAdmitted("there are more frames than its header names")
        return message_of(read.message, tensors)
    except (KeyError, TypeError, ValueError, OverflowError, WardroundError) as error:
        message = f"A message cannot be read: {error!s:.300}. Is its sender ours?"
        raise AnswerNotAdmitted(message) from error


def _read_header(header: str) -> _Header:
    check_bounds(header, HEADER_BOUNDS)
    return _Header.model_validate_json(header)


def _from(again: Callable[[int], bytes], place: int) -> Callable[[int], bytes]:
    return lambda number: again(place + number)


def _first(source: Iterator[bytes], count: int) -> Iterator[bytes]:
    for _ in range(count):
        frame = next(source, None)
        if frame is None:
            return
        yield frame


def message_text(header: str) -> str:
    """Return the text of a message's facts; AnswerNotAdmitted for what is no header."""
    try:
        return _read_header(header).message
    except ValueError as error:
        message = f"A message's header cannot be read: {error!s:.200}"
        raise AnswerNotAdmitted(message) from error


def facts_of(header: str) -> Mapping[str, object]:
    """Return the message's own facts without its tensors; AnswerNotAdmitted for no header."""
    try:
        facts = read_json(message_text(header), _FACTS_BOUNDS)
    except ValueError as error:
        message = f"A message's header cannot be read: {error!s:.200}"
        raise AnswerNotAdmitted(message) from error
    if not isinstance(facts, dict):
        raise AnswerNotAdmitted("A message's header holds no facts.")
    return facts


# --- in files ------------------------------------------------------------------------------


def write_envelope(path: Path, envelope: Envelope) -> None:
    """Write an envelope durably and whole."""
    first = json.dumps(
        {
            "header": envelope.header,
            "signature": envelope.signature.hex(),
            "frames": [len(frame) for frame in envelope.frames],
            "digest": envelope.digest.hex(),
        }
    )
    replace_durably(path, (first.encode(), b"\n", *envelope.frames))


def read_head(path: Path) -> tuple[str, str]:
    """Return a file's header and its digest in hex, without reading the tensors."""
    try:
        with path.open("rb") as file:
            facts = json.loads(file.readline())
        return str(facts["header"]), str(facts["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"Cannot read the message {path}: {error!r}."
        raise StateDamaged(message) from error


def read_envelope(path: Path) -> Envelope:
    """Read an envelope; StateDamaged when it is not as it was written."""
    try:
        with path.open("rb") as file:
            facts = json.loads(file.readline())
            lengths = [int(length) for length in facts["frames"]]
            held = os.fstat(file.fileno()).st_size - file.tell()
            whole = sum(lengths) == held and min(lengths, default=0) >= 0
            frames = tuple(file.read(length) for length in lengths) if whole else ()
        envelope = Envelope(
            header=facts["header"], frames=frames, signature=bytes.fromhex(facts["signature"])
        )
        whole = whole and envelope.digest.hex() == facts["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"Cannot read the message {path}: {error!r}."
        raise StateDamaged(message) from error
    if not whole:
        message = f"The message {path} was changed after it was written."
        raise StateDamaged(message)
    return envelope
