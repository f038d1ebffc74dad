"""Calls that come often: from the guard straight to Flower's handlers, in two threads.

Flower's application takes a call through nine layers, each with a thread or a task of its own,
and asks its database for what the guard has just found out. Here a call is what its handler does:

                        Flower's application          here
    unreadable body     refused                       refused, in the same words
    who calls a Fleet   its signature of the time,    the guard's signature of all, which has the
                        and the key's node            time in it, and the accepted site's node
    who calls a run     the task's token              the same
    a run not known     a fault                       over, as every run that has ended
    what is asked       Flower's handler              the same function

Whatever is not in the tables goes to Flower's application.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import (
    GetNodesRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PushAppMessagesRequest,
)
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from google.protobuf.message import DecodeError, Message
from starlette.types import ASGIApp, Receive, Scope, Send

from common.messages.pull_headers import FETCHED_HEADER
from common.platform.logs import log
from server.http.asgi import answer, body_or_refused, header
from server.service.calls.object_files import told_by_file
from server.service.calls.object_news import ObjectNews
from server.service.calls.replies import Replies
from server.service.calls.transfers import Transfers

#: So many of them work at a time: Python runs one, while the other waits for the disk.
_THREADS = 2
_PROTOBUF = "application/protobuf"
_DONE, _UNAUTHORIZED, _BROKEN = 200, 401, 500
#: A pull of an object that is on its way is held back so long.
_OBJECT_SECONDS = 1.0
_ON_ITS_WAY = (_DONE, PullObjectResponse(object_found=True).SerializeToString())
TASK_HEADER = b"flwr-task-token"
FLEET_PULL, FLEET_PUSH = "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
FLEET_LEAVE = "/v1/fleet/deactivate-node"
FLEET_PUSH_OBJECT, FLEET_PULL_OBJECT = "/v1/fleet/push-object", "/v1/fleet/pull-object"
RUNTIME_PULL, RUNTIME_PUSH = "/v1/runtime/pull-messages", "/v1/runtime/push-messages"
RUNTIME_PUSH_OBJECT, RUNTIME_PULL_OBJECT = "/v1/runtime/push-object", "/v1/runtime/pull-object"
_PUSHES = frozenset((FLEET_PUSH_OBJECT, RUNTIME_PUSH_OBJECT))


class Unauthorized(Exception):
    """The caller is not who may make this call."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call: how its body is read, and what answers it."""

    request: type[Message]
    handler: Callable[[Any, Any], Message]  # of the request, and of whoever calls
    header: tuple[str, Callable[[], str]] | None = None  # of a good answer: its name and value


#: Says who makes a call, by its headers: a node's number, or a task's token.
Caller = Callable[[Scope], Any]


def fleet_calls(state: LinkState, transfers: Transfers, replies: Replies) -> dict[str, Call]:
    """Return the calls of sites; a caller is the number of the node whose key has signed."""

    def of(request: type[Message], handler: Callable[[Any, LinkState], Message]) -> Call:
        def handled(asked: Any, node: int) -> Message:  # noqa: ANN401 - as the table says
            if asked.node.node_id != node:
                raise Unauthorized
            return _known(handler, asked, state)

        return Call(request=request, handler=handled)

    def pull(asked: Any, state: LinkState) -> Message:  # noqa: ANN401 - as the table says
        found = fleet_handlers.pull_messages(asked, state, state.object_store)
        if found.messages_list:
            transfers.begin(asked.node.node_id)
        return found

    def push(asked: Any, state: LinkState) -> Message:  # noqa: ANN401 - as the table says
        done = fleet_handlers.push_messages(asked, state)
        for message in asked.messages_list:
            replies.came(message.metadata.reply_to_message_id)
        return done

    def pull_object(asked: Any, state: LinkState) -> Message:  # noqa: ANN401 - as the table says
        found = fleet_handlers.pull_object(asked, state)
        transfers.fetched(asked.node.node_id, len(found.object_content))
        return found

    def confirm(asked: Any, state: LinkState) -> Message:  # noqa: ANN401 - as the table says
        transfers.end(asked.node.node_id)
        return fleet_handlers.confirm_message_received(asked, state, state.object_store)

    return {
        FLEET_PULL: of(PullMessagesRequest, pull),
        FLEET_PUSH: of(PushMessagesRequest, push),
        FLEET_PUSH_OBJECT: of(PushObjectRequest, fleet_handlers.push_object),
        FLEET_PULL_OBJECT: of(PullObjectRequest, pull_object),
        "/v1/fleet/send-node-heartbeat": of(
            SendNodeHeartbeatRequest, fleet_handlers.send_node_heartbeat
        ),
        "/v1/fleet/get-run": of(GetRunRequest, fleet_handlers.get_run),
        "/v1/fleet/confirm-message-received": of(ConfirmMessageReceivedRequest, confirm),
    }


def _known(
    handler: Callable[[Any, LinkState], Message],
    asked: Any,  # noqa: ANN401 - as the table says
    state: LinkState,
) -> Message:
    """Return Flower's answer; a run that Flower does not know is over.

    A coordinator that was put back from a backup knows nothing of runs begun since. To a site a
    fault is something to try again, before all else, for as long as the message is good.
    """
    try:
        return handler(asked, state)
    except KeyError as error:
        runs = [message.metadata.run_id for message in getattr(asked, "messages_list", ())]
        run = getattr(asked, "run_id", runs[0] if runs else 0)
        if state.get_run_info(run_ids=[run]):
            raise
        why = f"There is no run {run}: it is over."
        raise FlowerError(ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, why) from error


def runtime_calls(state: LinkState, transfers: Transfers, replies: Replies) -> dict[str, Call]:
    """Return the calls of runs; a caller is the token of the run's task."""

    def of(request: type[Message], handler: Callable[[Any, LinkState, Any], Message]) -> Call:
        def handled(asked: Any, token: str) -> Message:  # noqa: ANN401 - as the table says
            task = state.get_task_by_token(token) if token else None
            if task is None:
                raise FlowerError(
                    ApiErrorCode.RUNTIME_AUTHENTICATION_FAILED, "This token is of no task."
                )
            return handler(asked, state, task)

        return Call(request=request, handler=handled)

    def pull(asked: Any, state: LinkState, task: Any) -> Message:  # noqa: ANN401 - as the table says
        due = replies.due(str(task.run_id), asked.message_ids)
        if not due:
            return PullAppMessagesResponse()
        found = runtime_handlers.pull_messages(PullAppMessagesRequest(message_ids=due), state, task)
        for message in found.messages_list:
            replies.taken(message.metadata.reply_to_message_id)
        return found

    def pull_object(asked: Any, state: LinkState, task: Any) -> Message:  # noqa: ANN401 - as the table says
        with told_by_file():
            return runtime_handlers.pull_object(asked, state, task)

    return {
        RUNTIME_PULL: of(PullAppMessagesRequest, pull),
        RUNTIME_PUSH: of(PushAppMessagesRequest, runtime_handlers.push_messages),
        RUNTIME_PUSH_OBJECT: of(PushObjectRequest, runtime_handlers.push_object),
        RUNTIME_PULL_OBJECT: of(PullObjectRequest, pull_object),
        "/v1/runtime/get-nodes": replace(
            of(GetNodesRequest, runtime_handlers.get_nodes),
            header=(FETCHED_HEADER, transfers.header),
        ),
        "/v1/runtime/confirm-message-received": of(
            ConfirmMessageReceivedRequest, runtime_handlers.confirm_message_received
        ),
    }


def task_token(scope: Scope) -> str:
    """Return the token that a run's process shows; nothing where it is not given once."""
    return header(scope, TASK_HEADER) or ""


class FrequentCalls:
    """Answers the calls of a table; gives all others to Flower's application."""

    def __init__(
        self,
        app: ASGIApp,
        calls: Mapping[str, Call],
        caller: Caller,
        news: ObjectNews,
        largest_body: int,
    ) -> None:
        self._app = app
        self._calls = dict(calls)
        self._caller = caller
        self._largest_body = largest_body
        self._news = news
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="calls")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; its body is here before a thread takes it."""
        call = self._calls.get(scope["path"]) if scope["type"] == "http" else None
        if call is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = await body_or_refused(scope, receive, send, self._largest_body)
        if body is None:
            return
        if scope["path"] == FLEET_PULL_OBJECT:
            status, content = await self._object(scope, call, body)
        else:
            status, content = await self._called(scope, call, body)
        del body
        headers = []
        if status == _DONE and call.header is not None:
            name, value = call.header
            headers = [(name.encode(), value().encode())]
        kind = _PROTOBUF if status == 200 else "application/json"
        await answer(send, status, content, kind=kind.encode(), headers=headers)

    async def _called(self, scope: Scope, call: Call, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer; of an object that came, tell who waits for it."""
        loop = asyncio.get_running_loop()
        status, content = await loop.run_in_executor(
            self._threads, self._answered, scope, call, body
        )
        if scope["path"] in _PUSHES and status == _DONE:
            self._news.came(PushObjectRequest.FromString(body).object_id)
        return status, content

    async def _object(self, scope: Scope, call: Call, body: bytes) -> tuple[int, bytes]:
        """Return the answer of a pull of an object, a little later where it is on its way."""
        try:
            name = PullObjectRequest.FromString(body).object_id
        except DecodeError:
            name = ""
        with self._news.of(name) as news:
            found = await self._called(scope, call, body)
            if found != _ON_ITS_WAY:
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _OBJECT_SECONDS)
            return await self._called(scope, call, body)

    def _answered(self, scope: Scope, call: Call, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        path = scope["path"]
        try:
            return 200, call.handler(
                _read(scope, call, body), self._caller(scope)
            ).SerializeToString()
        except Unauthorized:
            return _UNAUTHORIZED, _detail("Invalid SuperNode authentication")
        except FlowerError as error:
            log(__name__).warning(
                "call refused", path=path, code=int(error.code), why=error.message
            )
            try:
                known = API_ERROR_MAP[error.code]
                content = error.to_json(known.public_message)
            except (KeyError, ValueError):
                return _BROKEN, _detail("Internal server error.")
            return known.http_status_code, _json(content)
        except Exception as error:  # noqa: BLE001 - a call's fault ends no service
            log(__name__).error("call failed", path=path, why=f"{type(error).__name__}: {error}")
            return _BROKEN, _detail("Internal server error.")


def _read(scope: Scope, call: Call, body: bytes) -> Message:
    """Return what a body says."""
    given = header(scope, b"content-type") or ""
    if given.partition(";")[0].strip().lower() != _PROTOBUF:
        raise FlowerError(
            ApiErrorCode.UNSUPPORTED_CONTENT_TYPE, f"Unsupported Content-Type: {given!r}"
        )
    try:
        return call.request.FromString(body)
    except DecodeError as error:
        message = f"Invalid protobuf payload: {error!r}"
        raise FlowerError(ApiErrorCode.INVALID_PROTOBUF_PAYLOAD, message) from error


def _detail(text: str) -> bytes:
    return _json({"detail": text})


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
