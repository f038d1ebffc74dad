"""An accepted site that answers with far too much, with nothing readable, or that never comes."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree

import server.rounds.approval
import server.transport.standings
from client.transport.fleet_client import FleetClient, PendingMessage, Reply, reply_to
from common.messages.signed_envelope import Envelope, seal
from common.messages.signing_key import sign
from common.messages.wire import Answer, SiteUpdate, Standing, TrainRequest
from common.models.run_network import initial_weights
from common.platform.errors import RunGone
from server.files.status_writer import Board
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted
from server.transport.flower_sites import FlowerSites
from tests.server.coordinator import Running, Site, made, running
from tests.server.loopback import Hospital, run_over
from tests.server.transport.test_flower_sites import patients_at, short

pytestmark = pytest.mark.processes

MIB = 1024 * 1024
#: Of one answer; SQLite's own log of writes has up to 4 MiB.
TOTAL = 24 * MIB
STANDING = Standing(
    run="run", round=0, site="evil", patients=1, epsilon=None, epsilon_left=None, seconds=None
)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Running]:
    with running(*made(tmp_path / "coordinator")) as found:
        yield found


@pytest.fixture
def north(coordinator: Running, tmp_path: Path) -> Iterator[Hospital]:
    """Yield an honest hospital at work."""
    site = coordinator.enrolled("north")
    found = Hospital(coordinator, site, tmp_path / "north", patients_at(1)).start()
    yield found
    found.stop()


class Evil:
    """An accepted site with a program of its own."""

    def __init__(self, coordinator: Running) -> None:
        self.site: Site = coordinator.enrolled("evil")
        authority = coordinator.folder.ca.read_text(encoding="ascii")
        self.fleet = FleetClient(coordinator.settings.address, authority, self.site.key)
        self.fleet.activate()
        self.asked = 0

    def close(self) -> None:
        self.fleet.close()

    def asks(self) -> PendingMessage | None:
        delivery = self.fleet.pull(0.0)
        self.fleet.received()
        self.asked += delivery is not None
        return delivery

    def signed(self, envelope: Envelope) -> Envelope:
        return envelope.signed(sign(self.site.key, envelope.digest))

    def large(self) -> Envelope:
        return self.signed(
            Envelope(
                header="{}", frames=tuple(os.urandom(2 * MIB) for _ in range(TOTAL // (2 * MIB)))
            )
        )

    def announce(self, reply: Reply, size: int) -> tuple[list[str], str]:
        """Announce an answer with any size."""
        self.fleet._receipts.answer_bytes = size
        request = PushMessagesRequest(
            node=self.fleet._node,
            messages_list=[MessageProto.FromString(reply.message)],
            message_object_trees=[ObjectTree.FromString(reply.tree)],
        )
        with self.fleet._explained():
            found = self.fleet._client.PushMessages(request)
        return list(found.objects_to_push), found.session_id


def says_so(evil: Evil, asked: PendingMessage) -> None:
    """Answer with far too much, and announce it."""
    with pytest.raises(RunGone, match="larger than 81920 bytes"):
        evil.fleet.offer(reply_to(asked, evil.large(), time.time()))


def lies(evil: Evil, asked: PendingMessage) -> None:
    """Announce little and send far too much."""
    reply = reply_to(asked, evil.large(), time.time())
    wanted, session = evil.announce(reply, 900)
    for name in sorted(wanted, key=lambda name: -len(reply.objects[name])):
        with pytest.raises(RunGone, match="larger than such an answer"):
            evil.fleet.give(asked.run_id, session, name, reply.objects[name])


def is_unreadable(evil: Evil, asked: PendingMessage) -> None:
    """Answer with something else than a message of ours."""
    give_all(evil, asked, evil.signed(Envelope(header="[" * 5000, frames=(b"x",))))


def answers_something_else(evil: Evil, asked: PendingMessage) -> None:
    """Answer a proposal with an update."""
    update = SiteUpdate(run="run", round=0, site="evil", delta={}, steps=1)
    give_all(evil, asked, evil.signed(seal(update)))


def is_of_no_time(evil: Evil, asked: PendingMessage) -> None:
    """Announce a good answer of times that no database keeps."""
    reply = reply_to(asked, evil.signed(seal(STANDING)), time.time())
    for field, value in itertools.product(("ttl", "created_at"), (math.nan, math.inf)):
        proto = MessageProto.FromString(reply.message)
        setattr(proto.metadata, field, value)
        with pytest.raises(RunGone):
            evil.fleet.offer(replace(reply, message=proto.SerializeToString()))


def names_any_file(evil: Evil, asked: PendingMessage) -> None:
    """Answer with objects of which one names a file without end."""
    reply = reply_to(asked, evil.signed(seal(STANDING)), time.time())
    body = b'{"000000": "/dev/zero"}'
    records = f"RecordDict  {len(body)}\x00".encode() + body
    inner = hashlib.sha256(records).hexdigest()
    root = f"Message {inner} 0\x00".encode()
    outer = hashlib.sha256(root).hexdigest()
    proto = MessageProto.FromString(reply.message)
    proto.metadata.message_id = outer
    tree = ObjectTree(object_id=outer, children=[ObjectTree(object_id=inner)])
    objects = {outer: root, inner: records}
    wanted, session = evil.fleet.offer(
        Reply(message=proto.SerializeToString(), tree=tree.SerializeToString(), objects=objects)
    )
    for name in wanted:
        evil.fleet.give(asked.run_id, session, name, objects[name])


def never_comes(evil: Evil, asked: PendingMessage) -> None:
    """Announce a good answer and send nothing of it."""
    evil.announce(reply_to(asked, evil.signed(seal(STANDING)), time.time()), 2000)


def give_all(evil: Evil, asked: PendingMessage, answer: Envelope) -> None:
    reply = reply_to(asked, answer, time.time())
    wanted, session = evil.fleet.offer(reply)
    for name in wanted:
        evil.fleet.give(asked.run_id, session, name, reply.objects[name])


def stored(coordinator: Running, folder: Path) -> int:
    """Return the bytes of the coordinator's database and of answers on their way."""
    kept = [*coordinator.folder.path.rglob("*.db*"), *(folder / "arriving").rglob("*")]
    found = 0
    for path in kept:
        with suppress(OSError):
            found += path.stat().st_size
    return found


@pytest.mark.parametrize(
    ("attack", "most_asked"),
    [
        (says_so, 1000),
        (lies, 3),
        (is_unreadable, 3),
        (answers_something_else, 3),
        (never_comes, 3),
        (is_of_no_time, 1000),
        (names_any_file, 3),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_run_goes_on_the_disk_stays_as_it_was_and_the_site_is_asked_no_more(
    coordinator: Running,
    north: Hospital,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: Callable[[Evil, PendingMessage], None],
    most_asked: int,
) -> None:
    monkeypatch.setattr(server.rounds.approval, "_LATER_SECONDS", 0.2)
    monkeypatch.setattr(server.transport.standings, "_LONGEST_SECONDS", 1.0)
    with (
        closing(Evil(coordinator)) as evil,
        run_over(coordinator, short(rounds=1), tmp_path / "run") as (sites, board),
    ):
        before = stored(coordinator, tmp_path / "run")
        start = time.monotonic()
        least, out = (4, True) if most_asked > 3 else (0, False)
        while time.monotonic() < start + 60 and not (
            time.monotonic() > start + least
            and is_ready(sites)
            and (out or sites.approval.is_out("evil"))
        ):
            sites.propose()
            asked = evil.asks()
            if asked is not None:
                attack(evil, asked)
        assert is_ready(sites)
        assert 1 <= evil.asked <= most_asked
        assert stored(coordinator, tmp_path / "run") - before < 8 * MIB
        assert not list((tmp_path / "run" / "arriving").glob("*"))
        if most_asked == 3:
            assert_it_is_out(sites, board)
            assert [sites.propose() is not None for _ in range(3)]
            assert evil.asks() is None
    assert north.errors == []


def is_ready(sites: FlowerSites) -> bool:
    return "north" in sites.approval.standings


def assert_it_is_out(sites: FlowerSites, board: Board) -> None:
    assert sites.approval.is_out("evil")
    assert len(sites.approval.faults["evil"]) == 3
    assert not sites.approval.undecided(["evil", "north"])
    assert "evil: an answer was closed" in sites.approval.why_waiting(["evil", "north"], 2)
    assert board.sites["evil"].state == "refused"


def test_an_update_of_another_size_than_the_model_is_not_taken(
    coordinator: Running, tmp_path: Path
) -> None:
    site = coordinator.enrolled("liar")

    def bloated(answer: Answer) -> Answer:
        if isinstance(answer, SiteUpdate):
            return replace(answer, delta={**answer.delta, "more": torch.randn(2_000_000)})
        return answer

    hospital = Hospital(coordinator, site, tmp_path / "liar", patients_at(2), lie=bloated).start()
    try:
        with run_over(coordinator, short(0.2, rounds=1), tmp_path / "run") as (sites, board):
            config = short(0.2, rounds=1)
            while "liar" not in sites.approval.standings:
                sites.propose()
            request = TrainRequest(
                run="run", round=1, seed=0, config=config, weights=initial_weights(config, 0)
            )
            before = stored(coordinator, tmp_path / "run")
            (told,) = sites.train(request, ["liar"])
            assert isinstance(told, NotAdmitted)
            assert told.fault is Fault.LATE  # nothing of it was ever announced
            assert stored(coordinator, tmp_path / "run") - before < 8 * MIB
            assert board.sites["liar"].state == "late"
    finally:
        hospital.stop()
