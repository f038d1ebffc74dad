"""Requests that are made to take a site down: each is answered, and the site goes on."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from flwr.proto.message_pb2 import Message

import client.governance.request_admission
from client.node.message_loop import MessageLoop
from client.transport.bounded_response import LARGEST_RESPONSE, bound_response
from common.config.run_config import RunConfig
from common.messages.signed_envelope import Envelope, seal, unseal
from common.messages.wire import Proposal, Refusal, RefusalReason, SiteUpdate
from tests.client.answering import CONFIG, Letters, question
from tests.client.letters import FolderFleet
from tests.common.config.test_config_yaml import BOMB
from tests.common.platform.test_bounded_json import HOSTILE


def proposal_with(config: str) -> Envelope:
    """Return a proposal whose configuration is any text."""
    envelope = seal(Proposal(run="run", round=0, seed=0, config=CONFIG))
    facts = json.loads(envelope.header)
    message = json.loads(facts["message"]) | {"config": config}
    return with_message(envelope, json.dumps(message))


def with_message(envelope: Envelope, message: str) -> Envelope:
    facts = json.loads(envelope.header) | {"message": message}
    return replace(envelope, header=json.dumps(facts))


def turns(letters: MessageLoop, fleet: FolderFleet, count: int = 4) -> None:
    for _ in range(count):
        letters.turn(fleet, 0.1)


def reasons(fleet: FolderFleet) -> list[RefusalReason]:
    answers = [unseal(a.header, a.frames) for a in fleet.answers()]
    return [a.reason for a in answers if isinstance(a, Refusal)]


@pytest.mark.parametrize("config", [BOMB, *HOSTILE.values()], ids=["bomb", *HOSTILE])
def test_a_configuration_that_would_hang_a_site_is_refused_and_the_next_request_answered(
    tmp_path: Path, config: str
) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    fleet.ask(proposal_with(config))
    turns(site.open(), fleet)
    assert reasons(fleet) == [RefusalReason.CONFIGURATION]
    assert not list((tmp_path / "home" / "inbox").iterdir())
    (_, facts) = next(told for told in site.told if told[0] == "refused")
    assert len(str(facts["detail"])) < 16_000
    fleet.ask(question())
    turns(site.open(), fleet)  # after a restart, too
    assert sum(isinstance(unseal(a.header, a.frames), SiteUpdate) for a in fleet.answers()) == 1


def test_a_message_of_another_release_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(text: str, *, source: str) -> RunConfig:
        raise AssertionError(text, source)

    monkeypatch.setattr(client.governance.request_admission, "read_config", never)
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    fleet.release = "0" * 64
    fleet.ask(proposal_with(BOMB))
    turns(site.open(), fleet)
    (site.home / "paused").touch()
    fleet.release = FolderFleet(tmp_path / "other").release
    fleet.ask(proposal_with(BOMB), number=1)
    turns(site.open(), fleet)
    assert sorted(r.name for r in reasons(fleet)) == ["PAUSED", "RELEASE"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "null",
        "{" * 5000,
        '{"kind":"proposal"}',
        "x" * 9_000_000,
        '{"kind":"proposal","run":"../../etc","round":0,"seed":0,"config":"{}"}',
        '{"kind":"proposal","run":"\\u001b[2J","round":0,"seed":0,"config":"{}"}',
        '{"kind":"proposal","run":"r","round":1e999,"seed":0,"config":"{}"}',
        '{"kind":"proposal","run":"r","round":' + "9" * 4000 + ',"seed":0,"config":"{}"}',
        '{"kind":"refusal","run":"r","round":0,"site":"s","reason":"FAILED"}',
    ],
    ids=lambda text: text[:40],
)
def test_a_request_that_is_none_is_answered_so_that_the_coordinator_knows(
    tmp_path: Path, message: str
) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    fleet.ask(with_message(seal(Proposal(run="r", round=0, seed=0, config=CONFIG)), message))
    letters = site.open()
    turns(letters, fleet)
    assert reasons(fleet) == [RefusalReason.UNREADABLE]
    assert letters.open == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"message_type": ""},
        {"message_type": "x" * 1000},
        {"ttl": math.nan},
        {"created_at": math.nan},
        {"created_at": math.inf},
        {"run_id": 2**63},
        {"group_id": "\0"},
    ],
    ids=str,
)
def test_a_message_that_flower_could_not_have_made_stops_no_site(
    tmp_path: Path, fault: dict[str, object]
) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    place = (
        tmp_path
        / "fleet/questions"
        / fleet.ask(seal(Proposal(run="other", round=0, seed=0, config=CONFIG)))
    )
    facts = json.loads(place.read_text())
    proto = Message.FromString(bytes.fromhex(facts["message"]))
    for name, value in fault.items():
        setattr(proto.metadata, name, value)
    place.write_text(json.dumps(facts | {"message": proto.SerializeToString().hex()}))
    turns(site.open(), fleet)
    fleet.ask(question(), number=1)
    turns(site.open(), fleet, 6)
    assert not list((tmp_path / "home" / "inbox").iterdir())
    assert any(isinstance(unseal(a.header, a.frames), SiteUpdate) for a in fleet.answers())


@pytest.mark.parametrize("header", ["", "[" * 100_000, '{"message": 1}', '"' * 300_000])
def test_an_envelope_without_a_header_is_answered(tmp_path: Path, header: str) -> None:
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    fleet.ask(Envelope(header=header, frames=()))
    turns(site.open(), fleet)
    assert reasons(fleet) == [RefusalReason.UNREADABLE]


@pytest.mark.parametrize(
    "frames",
    [tuple(os.urandom(2**18) for _ in range(8)), (os.urandom(2**18),) * 8],
    ids=["eight objects", "one object eight times"],
)
def test_a_request_larger_than_site_yaml_allows_is_not_kept(
    tmp_path: Path, frames: tuple[bytes, ...]
) -> None:
    """What stands in a request several times is sent once, and held as often as it stands there."""
    fleet, site = FolderFleet(tmp_path / "fleet"), Letters(tmp_path / "home")
    large = replace(seal(question()), frames=frames)
    fleet.ask(large)
    letters = site.open()
    config = letters.admission.config.model_copy(update={"largest_request_mib": 1})
    letters.admission = replace(letters.admission, config=config)
    letters._receive(fleet, 0.1)
    held = sum(p.stat().st_size for p in (tmp_path / "home" / "inbox").rglob("*") if p.is_file())
    assert held < 2**16
    turns(letters, fleet)
    assert reasons(fleet) == [RefusalReason.UNREADABLE]


@pytest.mark.parametrize(
    ("content", "headers", "ok"),
    [
        (b"x" * LARGEST_RESPONSE, {}, True),
        (b"x" * (LARGEST_RESPONSE + 1), {}, False),
        (b"x", {"content-encoding": "gzip"}, False),
        (b"x", {"content-encoding": "zstd"}, False),
    ],
    ids=["largest", "larger", "gzip", "zstd"],
)
def test_an_answer_without_end_is_not_read(
    content: bytes,
    headers: dict[str, str],
    ok: bool,  # noqa: FBT001 - of the table
) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        parts = (content[at : at + 2**16] for at in range(0, len(content), 2**16))
        return httpx.Response(200, headers=headers, content=parts)

    client = httpx.Client(
        transport=httpx.MockTransport(answer), event_hooks={"response": [bound_response]}
    )
    with client:
        if ok:
            assert client.get("https://coordinator/").content == content
            return
        with pytest.raises(httpx.ReadError, match="a coordinator"):
            client.get("https://coordinator/")
