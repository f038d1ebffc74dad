"""Client of Flower's Runtime API: one method a call. The seam to Flower of a run.

The run process is Flower's ServerApp: it holds the token of the run's task. Messages are read one
object at a time, so an update is never whole in memory twice.
"""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import httpx
from flwr.app import Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, SubStatus
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient

from common.messages.flower_http import KEPT_SECONDS, on_client
from common.messages.flower_messages import object_ids, record_of, with_receipt
from common.messages.pull_headers import (
    ANSWER_SECONDS_HEADER,
    FETCHED_HEADER,
    FILE_MARK,
    LARGEST_ANSWER_HEADER,
    WAIT_HEADER,
    read_fetched,
)
from common.messages.signed_envelope import Envelope
from common.platform.durable_files import link_or_copy
from common.platform.errors import AnswerNotAdmitted, LinkDown, RunFailed, RunGone
from common.platform.freed_memory import collect_after

#: A call that takes longer is made again: the SuperLink may have stood still meanwhile.
_CALL_SECONDS = 30.0
_NODE = Node(node_id=SUPERLINK_NODE_ID)
T = TypeVar("T")
T_REQUEST = TypeVar("T_REQUEST")


class AnswerTooLarge(AnswerNotAdmitted):
    """An answer grew beyond its bounds; nothing more of it is taken."""


@dataclass(frozen=True, kw_only=True)
class AnswerBounds:
    """How large an answer to a message may be, and how long one is taken."""

    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """A site as Flower sees it."""

    node_id: int
    public_key: bytes  # as Flower stores it: PEM
    online: bool
    activated_at: str  # when it came last; changes when its daemon starts anew
    fetched: int | None  # bytes of the message that it is fetching


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An answer that was announced; its objects may still be on their way."""

    asked: str  # name of the message that it answers
    name: str
    objects: tuple[str, ...]
    gone: bool  # True: no answer; Flower says that the site is offline


class _OperatorHeaders:
    """Adds what a run's calls carry: the operator's token, the task's, and a pull's wait.

    Without the operator's its listener answers nobody; by the task's Flower knows the run. Flower's
    own interceptor for that would import FastAPI into a run's process.
    """

    def __init__(self, operator: str, task: str) -> None:
        self._value, self._task = f"Bearer {operator}", task
        self.wait_seconds = 0.0
        self.answer = AnswerBounds(bytes=0, seconds=0.0)
        self.fetched: dict[int, int] = {}

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["authorization"] = self._value
        context.request.headers[TASK_TOKEN_HEADER] = self._task
        if isinstance(context.message, PullAppMessagesRequest):
            context.request.headers[WAIT_HEADER] = f"{self.wait_seconds:g}"
        if isinstance(context.message, PushAppMessagesRequest):
            context.request.headers[LARGEST_ANSWER_HEADER] = str(self.answer.bytes)
            context.request.headers[ANSWER_SECONDS_HEADER] = f"{self.answer.seconds:g}"
        response = call_next(context)
        if isinstance(context.message, GetNodesRequest):
            self.fetched = read_fetched(response.headers.get(FETCHED_HEADER, ""))
        return response


class Runtime:
    """The calls of one run; RunFailed when the SuperLink refuses one.

    LinkDown when it knows the run no more, or cannot answer: another process may begin there anew.

    A SuperLink that is away is waited for without end, since it may be a machine that stands still.
    Where the service has ended, this process ends with it (server/processes/run_process.py).
    """

    def __init__(self, address: str, authority: str, operator: str, task: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=authority)
        self._headers = _OperatorHeaders(operator, task)
        calls = RuntimeHttpClient(f"https://{address}", interceptors=[self._headers])
        # The service is on this machine: no proxy of the environment is on the way.
        client = httpx.Client(
            verify=context,
            timeout=_CALL_SECONDS,
            trust_env=False,
            limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
        )
        self._client = on_client(calls, client)
        self._over = False
        self.run_id = 0

    def begin(self) -> None:
        """Take up the run's task."""
        response = self._call(self._client.PullTaskInput, PullTaskInputRequest())
        self.run_id = int(response.run.run_id)

    def finish(self, *, succeeded: bool, details: str) -> None:
        """Say how the run ended; a SuperLink that is away finds out by itself."""
        self._over = True
        outcome = SubStatus.COMPLETED if succeeded else SubStatus.FAILED
        with suppress(LinkDown, RunFailed, RunGone):
            self._call(
                self._client.PushTaskOutput,
                PushTaskOutputRequest(sub_status=outcome, details=details),
            )
        self._client.close()

    def nodes(self) -> dict[bytes, NodeFacts]:
        """Return the sites that are registered and online, by public key."""
        response = self._call(self._client.GetNodes, GetNodesRequest())
        return {
            bytes(node.public_key): NodeFacts(
                node_id=int(node.node_id),
                public_key=bytes(node.public_key),
                online=node.status == "online",
                activated_at=str(node.last_activated_at),
                fetched=self._headers.fetched.get(int(node.node_id)),
            )
            for node in response.nodes
        }

    def post(
        self, envelope: Envelope, kind: str, receipts: Mapping[int, str], answer: AnswerBounds
    ) -> dict[int, str]:
        """Send one envelope to several sites, each with its receipt; returns messages' names.

        What the messages share is stored once. An answer is taken within its bounds only.
        """
        record, objects = record_of(envelope), dict[str, InflatableObject]()
        protos, trees, names = [], [], {}
        with no_object_id_recompute():
            for node, receipt in receipts.items():
                message = make_message(
                    metadata=self._metadata(node, kind, answer.seconds),
                    content=with_receipt(record, receipt),
                )
                names[node] = message.object_id
                message.metadata.__dict__["_message_id"] = message.object_id
                objects.update(get_all_nested_objects(message))
                trees.append(get_object_tree(message))
                protos.append(message_to_proto(remove_content_from_message(message)))
            request = PushAppMessagesRequest(messages_list=protos, message_object_trees=trees)
            self._headers.answer = answer
            response = self._call(self._client.PushMessages, request)
            for name in response.objects_to_push:
                self._push(str(name), objects[name].deflate(), str(response.session_id))
        taken = set(response.message_ids)
        return {node: name for node, name in names.items() if name in taken}

    def pull(self, asked: Sequence[str], wait_seconds: float = 0.0) -> list[Arrival]:
        """Return the answers that were announced to these messages since the last look.

        When there are none, one is waited for so long.
        """
        if not asked:
            return []
        self._headers.wait_seconds = wait_seconds
        response = self._call(self._client.PullMessages, PullAppMessagesRequest(message_ids=asked))
        pairs = zip(response.messages_list, response.message_object_trees, strict=True)
        return [
            Arrival(
                asked=str(message.metadata.reply_to_message_id),
                name=str(message.metadata.message_id),
                objects=tuple(object_ids(tree)),
                gone=message.HasField("error"),
            )
            for message, tree in pairs
        ]

    def fetch(self, name: str, to: Path) -> int | None:
        """Put an object at `to`; return its bytes, None while it is on its way.

        RunGone when it will never come.
        """
        request = PullObjectRequest(node=_NODE, run_id=self.run_id, object_id=name)
        response = self._call(self._client.PullObject, request)
        if not response.object_found:
            message = f"Object {name[:12]} of an answer was not sent in time."
            raise RunGone(message)
        if not response.object_available:
            return None
        content = bytes(response.object_content)
        if not content.startswith(FILE_MARK):
            to.write_bytes(content)
            return len(content)
        try:
            link_or_copy(Path(os.fsdecode(content[len(FILE_MARK) :])), to)
        except FileNotFoundError as error:
            message = f"Object {name[:12]} of an answer is gone: {error}."
            raise RunGone(message) from error
        return to.stat().st_size

    def confirm(self, name: str) -> None:
        """Say that all of an answer is here, so that the SuperLink can forget it."""
        request = ConfirmMessageReceivedRequest(
            node=_NODE, run_id=self.run_id, message_object_id=name
        )
        self._call(self._client.ConfirmMessageReceived, request)

    def _push(self, name: str, content: bytes, session: str) -> None:
        request = PushObjectRequest(
            node=_NODE,
            run_id=self.run_id,
            object_id=name,
            object_content=content,
            session_id=session,
        )
        if not self._call(self._client.PushObject, request).stored:
            message = f"The SuperLink did not take object {name[:12]} of a request; is a disk full?"
            raise RunFailed(message)
        del request
        collect_after(len(content))

    def _metadata(self, node: int, kind: str, seconds: float) -> Metadata:
        return Metadata(
            run_id=self.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            # Whole: what a site reckons of it for its answer is then exactly its request's.
            ttl=float(math.ceil(seconds)),
            message_type=kind,
        )

    def _call(self, call: Callable[[T_REQUEST], T], request: T_REQUEST) -> T:
        """Call, again while the SuperLink is away; every one of these may be repeated."""
        pause = 0.05
        while True:
            with _explained():
                try:
                    return call(request)
                except httpx.TransportError:
                    if self._over:
                        raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what httpx raises into what a person can act on."""
    try:
        yield
    except httpx.TransportError as error:
        message = f"The SuperLink does not answer: {error}. Is `wardround-coordinator start` up?"
        raise LinkDown(message) from error
    except httpx.HTTPStatusError as error:
        text = error.response.text[:200]
        if error.response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise AnswerTooLarge(text) from error
        status = error.response.status_code
        if status == httpx.codes.UNAUTHORIZED or error.response.is_server_error:
            message = f"The SuperLink lost the run: {status} {text}"
            raise LinkDown(message) from error
        message = f"The SuperLink ended the run: {status} {text}"
        raise RunFailed(message) from error
