"""Envelopes and objects of any bytes: a message comes out, or AnswerNotAdmitted, nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from flwr.app import ConfigRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages.flower_messages import open_objects
from common.messages.packing import unpack
from common.messages.signed_envelope import (
    Envelope,
    digest_of,
    facts_of,
    read_envelope,
    read_head,
    seal,
    unseal,
)
from common.messages.wire import Standing
from common.platform.errors import AnswerNotAdmitted, StateDamaged
from tests.common.messages.test_wire import MESSAGES

SEALED = [seal(message) for message in MESSAGES]


def read(envelope: Envelope) -> None:
    """Read everything of an envelope that either side reads."""
    for reader in (
        lambda: facts_of(envelope.header),
        lambda: unseal(envelope.header, envelope.frames),
    ):
        try:
            reader()
        except AnswerNotAdmitted as error:
            assert len(str(error)) < 1000  # noqa: PT017 - it is raised for most
    # Everything else that is raised fails the test.


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEALED), st.data())
def test_a_changed_envelope_is_read_or_refused(envelope: Envelope, data: st.DataObject) -> None:
    header = bytearray(envelope.header.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(header) - 1))
        header[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    frames = [bytearray(frame) for frame in envelope.frames]
    for frame in frames:
        if frame and data.draw(st.booleans()):
            frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    changed = Envelope(header=header.decode("latin-1"), frames=tuple(map(bytes, frames)))
    read(changed)
    same = (changed.header, changed.frames) == (envelope.header, envelope.frames)
    signed, now = (digest_of(one.header, one.frames) for one in (envelope, changed))
    assert same == (now == signed)  # what was signed is not what is read


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.text(), lambda p: st.lists(p) | st.dictionaries(st.text(), p)
    ).map(json.dumps)
)
def test_a_header_of_any_text_is_refused(text: str) -> None:
    with pytest.raises(AnswerNotAdmitted):
        unseal(text, ())
    with pytest.raises(AnswerNotAdmitted):
        facts_of(text)


def header_with(**tensors: object) -> str:
    facts = json.loads(SEALED[0].header)
    return json.dumps(facts | {"tensors": facts["tensors"] | tensors})


@pytest.mark.parametrize(
    "header",
    [
        header_with(parts={"weights": [["w", [2**40, 2**40]]]}, frames={"weights": 1}),
        header_with(parts={"weights": [["w", [2**62] * 100]]}, frames={"weights": 1}),
        header_with(parts={"weights": [["w", [-1]]]}),
        header_with(frames={"weights": 2**62}),
        header_with(frames={"weights": -1}),
        header_with(parts={"weights": [["w", [10**30]]]}),
        header_with(parts={"weights": [[f"w{n}", []] for n in range(90_000)]}),
        header_with(parts={"weights": [["w", [2**62] * 199_000]]}, frames={"weights": 1}),
        header_with(parts={"weights": [["w", [0] * 199_000]]}, frames={"weights": 0}),
        header_with(parts={"weights": [["w", [0, 2**62]]]}, frames={"weights": 0}),
        header_with(parts={"weights": [["w", [2**40, 2**40, 0]]]}, frames={"weights": 0}),
        header_with(parts={"weights": [["w", [0]], ["w", [0]]]}, frames={"weights": 0}),
        "[" * 100_000,
        '{"message":' * 50_000,
        json.dumps("x" * 17 * 2**20),
    ],
    ids=range(15),
)
def test_what_a_header_claims_takes_no_memory_and_no_time(header: str) -> None:
    with pytest.raises(AnswerNotAdmitted):
        unseal(header, (b"\x28\xb5\x2f\xfd" + b"\x00" * 50,))


def test_a_frame_that_would_grow_without_end_is_refused() -> None:
    import imagecodecs

    bomb = bytes(imagecodecs.zstd_encode(bytes(64 * 2**20), level=1))
    assert len(bomb) < 2**16
    for encoding in ("lossless", "float16", "int8"):
        with pytest.raises(AnswerNotAdmitted):
            unpack([("w", [10])], [bomb], encoding)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["Message", "RecordDict", "ConfigRecord"]))
def test_objects_of_any_bytes_are_refused(content: bytes, kind: str) -> None:
    objects = [content, f"{kind} 0 {len(content)}\x00".encode() + content]
    for one in objects:
        with pytest.raises(AnswerNotAdmitted):
            list(open_objects(lambda _name, one=one: one, ROOT).frames())  # type: ignore[misc]


ROOT, RECORDS, RECORD = "0" * 64, "1" * 64, "2" * 64


def a_message_with(records: bytes) -> dict[str, bytes]:
    """Return a message's objects; its records are any text."""
    head = ConfigRecord({"header": "", "signature": b"", "frames": 1, "frame": b""}).deflate()
    bodies = {
        ROOT: f"Message {RECORDS} 0\x00".encode(),
        RECORDS: f"RecordDict  {len(records)}\x00".encode() + records,
    }
    return {**bodies, RECORD: head}


@pytest.mark.parametrize(
    "records",
    [
        b'"text"',
        b"5",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"000000": 5}',
        b'{"000000": ["x"]}',
        b"1" * 5000,
        b"\xff",
        b'{"receipt": {}, "000000": "a"}',
    ],
    ids=range(10),
)
def test_records_of_any_text_are_refused(records: bytes) -> None:
    with pytest.raises(AnswerNotAdmitted):
        open_objects(a_message_with(records).__getitem__, ROOT)


@pytest.mark.parametrize("name", ["/dev/zero", "../../key", "", "A" * 64, f"{RECORD}\\n", RECORD])
def test_no_object_is_asked_for_by_a_name_that_could_be_another_files(name: str) -> None:
    """Who reads objects has them as files: /dev/zero would fill its memory."""
    asked: list[str] = []
    objects = a_message_with(f'{{"000000": "{name}"}}'.encode())

    def read(one: str) -> bytes:
        asked.append(one)
        return objects[one]

    if name == RECORD:
        assert list(open_objects(read, ROOT).frames()) == [b""]
    else:
        with pytest.raises(AnswerNotAdmitted, match="expected a SHA-256"):
            open_objects(read, ROOT)
    assert set(asked) <= objects.keys()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_a_file_of_any_bytes_is_damaged(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request"
        for one in (content, struct.pack("<Q", len(content)) + content, b"{}\n" + content):
            path.write_bytes(one)
            with pytest.raises(StateDamaged):
                read_envelope(path)
            with pytest.raises(StateDamaged):
                read_head(path)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        ("seconds", "Infinity"),
        ("seconds", "1e308"),
        ("seconds", "NaN"),
        ("seconds", "-1"),
        ("epsilon", "Infinity"),
        ("epsilon_left", "1e999"),
        ("patients", "1" + "0" * 300),
        ("patients", "1" + "0" * 5000),
        ("patients", "-1"),
    ],
)
def test_a_standing_tells_no_number_that_nothing_can_be_made_of(field: str, number: str) -> None:
    standing = Standing(
        run="r", round=0, site="north", patients=12, epsilon=1.0, epsilon_left=2.0, seconds=3.0
    )
    header = seal(standing).header
    facts = json.loads(header)
    message = json.loads(facts["message"]) | {field: "?"}
    facts["message"] = json.dumps(message).replace('"?"', number)
    assert unseal(header, ()) == standing
    with pytest.raises(AnswerNotAdmitted):
        unseal(json.dumps(facts), ())
