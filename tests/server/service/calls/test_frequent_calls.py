"""One table of calls: Flower's application and ours give the same answers and refusals."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from flwr.proto.runtime_pb2 import (
    GetNodesRequest,
    PullAppMessagesRequest,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
)
from flwr.server.superlink.linkstate import SqlLinkState, sql_linkstate
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import ObjectChild, RunObject, StoredObject
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from google.protobuf.message import Message
from starlette.types import ASGIApp, Receive, Scope, Send

from common.messages.pull_headers import FILE_MARK
from common.messages.signing_key import new_private_key, public_text
from server.service.calls.frequent_calls import (
    FrequentCalls,
    Unauthorized,
    fleet_calls,
    runtime_calls,
    task_token,
)
from server.service.calls.object_files import SMALLEST_FILE
from server.service.calls.object_news import ObjectNews
from server.service.calls.replies import Replies
from server.service.calls.transfers import Transfers
from server.service.site_authentication import AcceptedSites, Member
from server.service.superlink import SuperLink
from tests.server.coordinator import PROTOBUF, Site

KEY = new_private_key()
AT = time.time()
#: One object is a file, the others are rows.
LARGE = b"x" * SMALLEST_FILE


async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pytest.fail("a frequent call went to Flower's application")


@dataclass
class Parts:
    """A message as it travels."""

    proto: Any
    tree: Any
    objects: dict[str, bytes]

    @classmethod
    def of(cls, *, run: int, source: int, to: int, reply_to: str = "", said: str = "") -> Parts:
        content = RecordDict({"0": ConfigRecord({"to": said or str(to), "frame": LARGE})})
        message = make_message(
            metadata=Metadata(
                run_id=run,
                message_id="",
                src_node_id=source,
                dst_node_id=to,
                reply_to_message_id=reply_to,
                group_id="",
                created_at=AT,
                ttl=86_400.0,
                message_type="query",
            ),
            content=content,
        )
        with no_object_id_recompute():
            objects = {n: o.deflate() for n, o in get_all_nested_objects(message).items()}
            tree = get_object_tree(message)
            message.metadata.__dict__["_message_id"] = message.object_id
        return cls(message_to_proto(remove_content_from_message(message)), tree, objects)

    @property
    def id(self) -> str:
        return str(self.tree.object_id)


@dataclass
class Told:
    """What was answered to each call of the table."""

    link: SuperLink
    fleet: ASGIApp
    runtime: ASGIApp
    member: Member
    said: list[tuple[str, int, bytes]] = field(default_factory=list)

    def site(self, name: str, path: str, request: Message | bytes, **more: str) -> httpx.Response:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        headers = {**Site(name="north", key=KEY).headers(f"/v1/fleet/{path}", body), **more}
        return self._call(name, self.fleet, f"/v1/fleet/{path}", body, headers)

    def run(self, name: str, path: str, request: Message | bytes, token: str) -> httpx.Response:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        headers = {"content-type": PROTOBUF, "flwr-task-token": token}
        return self._call(name, self.runtime, f"/v1/runtime/{path}", body, headers)

    def _call(
        self, name: str, app: ASGIApp, path: str, body: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.post(path, content=body, headers=headers)

        found = asyncio.run(ask())
        content = found.content
        if path.endswith("get-run") and found.status_code == 200:
            answered = GetRunResponse.FromString(content)
            for passing in ("pending_at", "starting_at", "running_at"):
                answered.run.ClearField(passing)
            content = answered.SerializeToString()
        if path == "/v1/runtime/pull-object" and found.status_code == 200:
            pulled = PullObjectResponse.FromString(content)
            if pulled.object_content.startswith(FILE_MARK):  # a run reads the file itself
                file = Path(os.fsdecode(pulled.object_content[len(FILE_MARK) :]))
                pulled.object_content = file.read_bytes()
                content = pulled.SerializeToString()
        self.said.append((name, found.status_code, content))
        return found


def told(link: SuperLink, *, by_flower: bool) -> Told:
    member = link.register("north", public_text(KEY))
    sites = AcceptedSites()
    sites.replace([member])

    def node(scope: Scope) -> int:
        found = sites.shown_by(scope)
        if found is None:
            raise Unauthorized
        return found.node_id

    transfers, replies, news, most = Transfers(), Replies(), ObjectNews(), 10_000_000
    calls = fleet_calls(link.state, transfers, replies)
    runs = runtime_calls(link.state, transfers, replies)
    ours = (
        FrequentCalls(never, calls, node, news, most),
        FrequentCalls(never, runs, task_token, news, most),
    )
    fleet, runtime = (link.app, link.app) if by_flower else ours
    return Told(link=link, fleet=fleet, runtime=runtime, member=member)


def table(link: SuperLink, *, by_flower: bool) -> list[tuple[str, int, bytes]]:
    """Make all calls, right ones and wrong ones, and return what was said."""
    t = told(link, by_flower=by_flower)
    started = link.start_run("demo")
    task = link.state.get_task_by_token(started.token)
    assert task is not None
    assert link.state.activate_task(task.task_id)
    assert link.state.activate_node(t.member.node_id, 30)
    number, token, node = started.number, started.token, Node(node_id=t.member.node_id)
    here = Node(node_id=SUPERLINK_NODE_ID)
    asked = Parts.of(run=number, source=SUPERLINK_NODE_ID, to=node.node_id)
    pull = PullMessagesRequest(node=node)
    t.site("nothing to pull", "pull-messages", pull)
    t.site("another site's name", "pull-messages", PullMessagesRequest(node=Node(node_id=7)))
    t.site("no protobuf", "pull-messages", b"\xff\xff\xff")
    t.site("no protobuf's type", "pull-messages", pull, **{"content-type": "text/plain"})
    push = PushAppMessagesRequest(messages_list=[asked.proto], message_object_trees=[asked.tree])
    t.run("no token", "push-messages", push, "")
    t.run("a wrong token", "push-messages", push, "wrong")
    t.run("no message", "push-messages", PushAppMessagesRequest(), token)
    pushed = t.run("a message", "push-messages", push, token)
    session = str(PushAppMessagesResponse.FromString(pushed.content).session_id)
    _objects_of_a_run(t, asked, session, token, number)
    t.site("a message to pull", "pull-messages", pull)
    t.site("pulled once", "pull-messages", pull)
    t.site("the run", "get-run", GetRunRequest(node=node, run_id=number))
    for name in (*asked.objects, "0" * 64):
        request = PullObjectRequest(node=node, run_id=number, object_id=name)
        t.site("an object", "pull-object", request)
    confirm = ConfirmMessageReceivedRequest(node=node, run_id=number, message_object_id=asked.id)
    t.site("it came", "confirm-message-received", confirm)
    t.site(
        "an object that was deleted",
        "pull-object",
        PullObjectRequest(node=node, run_id=number, object_id=asked.id),
    )
    answer = Parts.of(run=number, source=node.node_id, to=SUPERLINK_NODE_ID, reply_to=asked.id)
    given = PushMessagesRequest(
        node=node,
        messages_list=[answer.proto],
        message_object_trees=[answer.tree],
        clientapp_runtime_list=[0.0],
    )
    offered = t.site("an answer", "push-messages", given)
    session = str(PushMessagesResponse.FromString(offered.content).session_id)
    _objects_of_a_site(t, answer, session, node, number)
    wanted = PullAppMessagesRequest(message_ids=[asked.id])
    t.run("answers", "pull-messages", wanted, token)
    t.run("nodes, with no token", "get-nodes", GetNodesRequest(), "")
    for name in answer.objects:
        request = PullObjectRequest(node=here, run_id=number, object_id=name)
        t.run("its object", "pull-object", request, token)
    t.run(
        "an object as a site",
        "pull-object",
        PullObjectRequest(node=node, run_id=number, object_id=answer.id),
        token,
    )
    done = ConfirmMessageReceivedRequest(node=here, run_id=number, message_object_id=answer.id)
    t.run("the answer came", "confirm-message-received", done, token)
    link.stop_run(number)
    _after_the_run(t, asked, given, session, node, number)
    t.run("its token is over", "push-messages", push, token)
    link.unregister(public_text(KEY))
    return t.said


def _objects_of_a_run(t: Told, asked: Parts, session: str, token: str, number: int) -> None:
    here = Node(node_id=SUPERLINK_NODE_ID)
    for name, content in asked.objects.items():
        request = PushObjectRequest(
            node=here, run_id=number, object_id=name, object_content=content, session_id=session
        )
        t.run("an object of it, not here yet", "pull-object", _wanted(here, number, name), token)
        t.run("an object of it, with a wrong token", "push-object", request, "wrong")
        request.node.node_id = 7
        t.run("an object of it, as a site", "push-object", request, token)
        request.node.node_id = SUPERLINK_NODE_ID
        t.run("an object of it", "push-object", request, token)
        t.run("an object of it, again", "push-object", request, token)
        t.run("an object of it, here", "pull-object", _wanted(here, number, name), token)


def _objects_of_a_site(t: Told, answer: Parts, session: str, node: Node, number: int) -> None:
    for name, content in answer.objects.items():
        request = PushObjectRequest(
            node=node, run_id=number, object_id=name, object_content=content, session_id=session
        )
        for fault, change in {
            "of another session": PushObjectRequest(session_id="none"),
            "of another site": PushObjectRequest(node=Node(node_id=7)),
            "that nobody announced": PushObjectRequest(object_id="0" * 64),
        }.items():
            wrong = PushObjectRequest()
            wrong.CopyFrom(request)
            wrong.MergeFrom(change)
            t.site(f"an object {fault}", "push-object", wrong)
        t.site("an object of it", "push-object", request)
        t.site("an object of it, again", "push-object", request)


def _after_the_run(
    t: Told, asked: Parts, given: Message, session: str, node: Node, number: int
) -> None:
    for path, request in {
        "get-run": GetRunRequest(node=node, run_id=number),
        "push-messages": given,
        "pull-object": _wanted(node, number, asked.id),
        "push-object": PushObjectRequest(
            node=node, run_id=number, object_id=asked.id, object_content=b"", session_id=session
        ),
        "confirm-message-received": ConfirmMessageReceivedRequest(
            node=node, run_id=number, message_object_id=asked.id
        ),
    }.items():
        t.site(f"{path} of a run that is over", path, request)


def _wanted(node: Node, number: int, name: str) -> PullObjectRequest:
    return PullObjectRequest(node=node, run_id=number, object_id=name)


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let Flower's random numbers be counted, from one again with each call."""

    def begin() -> None:
        numbers = itertools.count(1000)
        for module in (sql_linkstate, sql_corestate):
            monkeypatch.setattr(
                module, "generate_rand_int_from_bytes", lambda *_, **__: next(numbers)
            )
        monkeypatch.setattr(sql_corestate, "uuid4", lambda: f"session-{next(numbers)}")

    return begin


def test_our_path_answers_and_refuses_as_flowers_own_does(
    tmp_path: Path, numbered: Callable[[], None]
) -> None:
    said = []
    for name in ("flower", "ours"):
        numbered()
        (tmp_path / name).mkdir()
        link = SuperLink(tmp_path / name / "superlink.db")
        said.append(table(link, by_flower=name == "flower"))
    flower, ours = said
    assert len(flower) == len(ours)
    for theirs, own in zip(flower, ours, strict=True):
        assert own == theirs
    statuses = {name: status for name, status, _ in flower}
    assert {n for n, s in statuses.items() if s == 401} == {
        "another site's name",
        "no token",
        "a wrong token",
        "nodes, with no token",
        "an object of it, with a wrong token",
        "an object of another site",
        "its token is over",
    }
    assert {n for n, s in statuses.items() if s == 403} - {"no such run"} == {
        f"{path} of a run that is over"
        for path in (
            "get-run",
            "push-messages",
            "pull-object",
            "push-object",
            "confirm-message-received",
        )
    }
    wrong = {c for n, s, c in flower if n.startswith("an object of an") and s == 200}
    assert [PushObjectResponse.FromString(c).stored for c in wrong] == [False]


def test_a_key_that_was_revoked_calls_nothing(tmp_path: Path) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    t = told(link, by_flower=False)
    calls = FrequentCalls(
        never, fleet_calls(link.state, Transfers(), Replies()), _nobody, ObjectNews(), 10_000_000
    )
    t.fleet = calls
    request = PullMessagesRequest(node=Node(node_id=t.member.node_id))
    assert t.site("revoked", "pull-messages", request).status_code == 401


def test_a_run_that_a_coordinator_put_back_does_not_know_is_over_and_is_not_asked_for_again(
    tmp_path: Path,
) -> None:
    """A fault of the service is tried again for ever, and keeps the site from all other runs."""
    link = SuperLink(tmp_path / "superlink.db")
    t = told(link, by_flower=False)
    node, unknown = Node(node_id=t.member.node_id), 99
    asked = Parts.of(run=unknown, source=SUPERLINK_NODE_ID, to=node.node_id)
    answer = Parts.of(run=unknown, source=node.node_id, to=SUPERLINK_NODE_ID, reply_to=asked.id)
    given = PushMessagesRequest(
        node=node,
        messages_list=[answer.proto],
        message_object_trees=[answer.tree],
        clientapp_runtime_list=[0.0],
    )
    _after_the_run(t, asked, given, "none", node, unknown)
    assert [status for _, status, _ in t.said] == [403] * 5, t.said


def _nobody(_scope: Scope) -> int:
    raise Unauthorized


#: What we call of Flower or put in its place; another signature is another meaning.
SIGNATURES = {
    fleet_handlers.pull_messages: ["request", "state", "store"],
    fleet_handlers.push_messages: ["request", "state"],
    fleet_handlers.get_run: ["request", "state"],
    fleet_handlers.push_object: ["request", "state"],
    fleet_handlers.pull_object: ["request", "state"],
    fleet_handlers.confirm_message_received: ["request", "state", "store"],
    runtime_handlers.push_messages: ["request", "state", "task"],
    runtime_handlers.pull_messages: ["request", "state", "task"],
    runtime_handlers.push_object: ["request", "state", "task"],
    runtime_handlers.pull_object: ["request", "state", "task"],
    runtime_handlers.get_nodes: ["request", "state", "task"],
    runtime_handlers.confirm_message_received: ["request", "state", "task"],
    SqlObjectStore.__init__: ["self", "database_path", "verify"],
    SqlObjectStore.preregister: ["self", "run_id", "object_tree"],
    SqlObjectStore.put: ["self", "object_id", "object_content"],
    SqlObjectStore.get: ["self", "object_id"],
    SqlObjectStore.delete: ["self", "object_id"],
    SqlObjectStore.delete_objects_in_run: ["self", "run_id"],
    SqlObjectStore.clear: ["self"],
    SqlObjectStore._mutation_session: ["self"],
    SqlLinkState.__init__: ["self", "database_path", "federation_manager", "object_store"],
    SqlLinkState.store_object: ["self", "run_id", "session_id", "object_id", "object_content"],
    SqlLinkState.store_traffic: ["self", "run_id", "bytes_sent", "bytes_recv"],
    SqlLinkState._cleanup_expired_task_tokens: ["self"],
    SqlLinkState._claim_pending_object: ["self", "run_id", "session_id", "object_id"],
    SqlLinkState._cleanup_push_session: ["self", "session_id", "cleanup_messages"],
    SqlLinkState.cleanup_run: ["self", "run_id"],
    SqlLinkState.get_run_status: ["self", "run_ids"],
    SqlLinkState.acknowledge_node_heartbeat: ["self", "node_id", "heartbeat_interval"],
    SqlLinkState.get_task_by_token: ["self", "token"],
    SqlLinkState.claim_task: ["self", "task_id"],
    SqlLinkState.activate_task: ["self", "task_id"],
    SqlLinkState.acknowledge_task_heartbeat: ["self", "task_id"],
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_flowers_functions_are_those_that_we_know(function: Callable[..., object]) -> None:
    assert list(inspect.signature(function).parameters) == SIGNATURES[function]


def test_flowers_objects_are_the_rows_that_we_know() -> None:
    assert {c.name for c in StoredObject.__table__.columns} == {
        "object_id",
        "content",
        "is_available",
        "ref_count",
    }
    assert {c.name for c in ObjectChild.__table__.columns} == {"parent_id", "child_id"}
    assert {c.name for c in RunObject.__table__.columns} == {"run_id", "object_id"}
