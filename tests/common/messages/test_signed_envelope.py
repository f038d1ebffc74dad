from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from flwr.app import Metadata
from flwr.app.message import make_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from common.messages.flower_messages import open_objects, record_of
from common.messages.signed_envelope import (
    Envelope,
    digest_of,
    facts_of,
    read_envelope,
    read_head,
    seal,
    unseal,
    write_envelope,
)
from common.messages.wire import Message, Proposal, SiteUpdate, Standing
from common.platform.errors import AnswerNotAdmitted, StateDamaged
from tests.common.messages.test_wire import CONFIG, MESSAGES

UPDATE = SiteUpdate(
    run="r",
    round=1,
    site="north",
    delta={"w": torch.randn(3, 4)},
    steps=1,
    control_delta={"w": torch.ones(3, 4), "b": torch.zeros(2)},
)
MORE: tuple[Message, ...] = (
    Proposal(run="r", round=0, seed=3, config=CONFIG),
    Standing(
        run="r", round=0, site="north", patients=12, epsilon=None, epsilon_left=2.5, seconds=None
    ),
)


@pytest.mark.parametrize("message", [*MESSAGES, *MORE], ids=lambda m: type(m).__name__)
def test_a_message_is_opened_as_it_was_sealed(message: Message) -> None:
    envelope = seal(message)
    assert repr(unseal(envelope.header, envelope.frames)) == repr(message)


def test_the_same_message_is_the_same_bytes() -> None:
    assert seal(UPDATE) == seal(UPDATE)
    assert seal(UPDATE).digest == seal(UPDATE).digest


def test_the_digest_changes_with_header_frames_and_where_one_ends() -> None:
    header, frames = "h", (b"ab", b"c")
    found = {
        digest_of(header, frames),
        digest_of("i", frames),
        digest_of(header, (b"a", b"bc")),
        digest_of(header, (b"ab", b"d")),
        digest_of("hab", (b"c",)),
        digest_of(header, (b"abc",)),
    }
    assert len(found) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["tensors"]["parts"].pop("delta"),
        lambda facts: facts["tensors"]["frames"].update(delta=0),
        lambda facts: facts["tensors"]["frames"].update(delta=2),
        lambda facts: facts["tensors"].update(encoding="pickle"),
        lambda facts: facts.update(extra=1),
        lambda facts: facts.update(message="{}"),
    ],
)
def test_an_envelope_that_contradicts_itself_is_refused(change: object) -> None:
    envelope = seal(UPDATE)
    facts = json.loads(envelope.header)
    assert callable(change)
    change(facts)
    with pytest.raises(AnswerNotAdmitted):
        unseal(json.dumps(facts), envelope.frames)


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a/b", "", ".hidden", "x" * 300])
def test_a_run_whose_name_could_leave_its_folder_is_refused(name: str) -> None:
    envelope = seal(UPDATE)
    facts = json.loads(envelope.header)
    facts["message"] = facts["message"].replace('"run":"r"', f'"run":"{name}"')
    with pytest.raises(AnswerNotAdmitted):
        unseal(json.dumps(facts), envelope.frames)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    envelope = seal(UPDATE).signed(b"signature")
    write_envelope(tmp_path / "x", envelope)
    assert read_envelope(tmp_path / "x") == envelope
    header, digest = read_head(tmp_path / "x")
    assert (header, digest) == (envelope.header, envelope.digest.hex())
    assert facts_of(header)["site"] == "north"


@pytest.mark.parametrize("place", range(0, 1200, 7))
def test_a_file_that_was_changed_anywhere_is_told_of(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x"
    envelope = seal(UPDATE)
    write_envelope(path, envelope)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)
    try:
        found = read_envelope(path)
    except StateDamaged:
        return
    # A changed digit of the unsigned envelope's own bookkeeping is all that may pass.
    assert (found.header, found.frames) == (envelope.header, envelope.frames)


@pytest.mark.parametrize("lengths", [[-1], [1 << 60], [3, -3], ["many"]])
def test_lengths_that_a_file_does_not_have_are_told_of_before_anything_is_read(
    tmp_path: Path, lengths: list[object]
) -> None:
    path = tmp_path / "x"
    envelope = Envelope(header="h", frames=(b"abc",))
    write_envelope(path, envelope)
    line, _, rest = path.read_bytes().partition(b"\n")
    changed = json.dumps({**json.loads(line), "frames": lengths})
    path.write_bytes(changed.encode() + b"\n" + rest)
    with pytest.raises(StateDamaged):
        read_envelope(path)


def test_a_signed_envelope_has_the_digest_of_its_bytes() -> None:
    envelope = Envelope(header="h", frames=(b"abc", b"d"))
    before = envelope.digest
    signed = envelope.signed(b"signature")
    assert signed.digest == before == digest_of("h", (b"abc", b"d"))
    assert Envelope(header="h", frames=(b"ab", b"cd")).digest != before


def test_flower_carries_an_envelope_and_shares_what_is_equal() -> None:
    envelope = seal(UPDATE).signed(b"s")
    objects: dict[str, bytes] = {}
    roots = []
    for node in (1, 2):
        metadata = Metadata(
            run_id=1,
            message_id="",
            src_node_id=1,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=2e9,
            ttl=10,
            message_type="train",
        )
        message = make_message(metadata=metadata, content=record_of(envelope))
        roots.append(message.object_id)
        objects |= {n: o.deflate() for n, o in get_all_nested_objects(message).items()}
    assert len([name for name in objects if name not in roots]) + 2 == len(objects)
    for root in roots:
        opened = open_objects(objects.__getitem__, root)
        assert (opened.header, opened.signature) == (envelope.header, b"s")
        assert tuple(opened.frames()) == envelope.frames


@pytest.mark.parametrize("kind", ["Message", "RecordDict", "ConfigRecord"])
def test_flower_objects_of_another_form_are_refused(kind: str) -> None:
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=1,
        dst_node_id=1,
        reply_to_message_id="",
        group_id="",
        created_at=2e9,
        ttl=10,
        message_type="train",
    )
    message = make_message(metadata=metadata, content=record_of(seal(UPDATE)))
    objects = {n: o.deflate() for n, o in get_all_nested_objects(message).items()}
    broken = {
        n: (b"Other 0\x00" if c.startswith(kind.encode() + b" ") else c) for n, c in objects.items()
    }

    def read() -> list[bytes]:
        return list(open_objects(broken.__getitem__, message.object_id).frames())

    with pytest.raises(AnswerNotAdmitted):
        read()
