"""Flower's own clients against our listeners: a site's, and a run process's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from flwr.app import ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PushAppMessagesRequest,
)
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.transport.headers import Signing
from common.messages.pull_headers import DELIVERY_HEADER
from common.messages.signing_key import public_pem, public_text
from tests.server.coordinator import Running, Site


@dataclass
class Headers:
    """Adds headers to each request and keeps the name of the last delivery."""

    values: dict[str, str] = field(default_factory=dict)
    delivery: str | None = None

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers.update(self.values)
        response = call_next(context)
        self.delivery = response.headers.get(DELIVERY_HEADER, self.delivery)
        return response


class Caller:
    """A site that calls the Fleet API."""

    def __init__(self, coordinator: Running, site: Site, **headers: str) -> None:
        self.headers = Headers({name.replace("_", "-"): value for name, value in headers.items()})
        key = site.key
        self.client = FleetHttpClient(
            coordinator.site_url,
            verify=coordinator.context,
            interceptors=[
                NodeAuthHttpInterceptor(key, key.public_key()),
                self.headers,
                Signing(key),
            ],
        )
        self._public = public_pem(public_text(key))
        self._node = Node(node_id=site.node_id)

    def close(self) -> None:
        self.client.close()

    def activate(self) -> None:
        self.client.ActivateNode(
            ActivateNodeRequest(public_key=self._public, heartbeat_interval=30)
        )

    def pull(self) -> list[str]:
        """Return the names of the messages that came."""
        found: PullMessagesResponse = self.client.PullMessages(PullMessagesRequest(node=self._node))
        self.messages = list(found.messages_list)
        return [message.metadata.message_id for message in self.messages]

    def answer(self, asked: MessageProto) -> None:
        metadata = message_from_proto(asked).metadata
        proto, tree = _message(
            run=metadata.run_id,
            source=metadata.dst_node_id,
            to=metadata.src_node_id,
            reply_to=metadata.message_id,
        )
        self.client.PushMessages(
            PushMessagesRequest(node=self._node, messages_list=[proto], message_object_trees=[tree])
        )


class RunProcess:
    """The process of a run, with its task's token and the operator's."""

    def __init__(self, coordinator: Running, name: str = "demo") -> None:
        self.started = coordinator.gateway.superlink.start_run(name)
        self.headers = Headers(coordinator.token())
        self.client = RuntimeHttpClient(
            coordinator.operator_url,
            verify=coordinator.context,
            interceptors=[
                RuntimeTokenHttpInterceptor(self.started.token),
                RuntimeVersionHttpInterceptor("x"),
                self.headers,
            ],
        )
        self.input = self.client.PullTaskInput(PullTaskInputRequest())

    def close(self) -> None:
        self.client.close()

    def send(self, nodes: Sequence[int]) -> list[str]:
        parts = [
            _message(run=self.started.number, source=SUPERLINK_NODE_ID, to=node) for node in nodes
        ]
        found = self.client.PushMessages(
            PushAppMessagesRequest(
                messages_list=[proto for proto, _ in parts],
                message_object_trees=[tree for _, tree in parts],
            )
        )
        return list(found.message_ids)

    def pull(self, names: Sequence[str]) -> list[str]:
        """Return which messages were answered."""
        found: PullAppMessagesResponse = self.client.PullMessages(
            PullAppMessagesRequest(message_ids=names)
        )
        return [message.metadata.reply_to_message_id for message in found.messages_list]


def _message(
    *, run: int, source: int, to: int, reply_to: str = ""
) -> tuple[MessageProto, ObjectTree]:
    metadata = Metadata(
        run_id=run,
        message_id="",
        src_node_id=source,
        dst_node_id=to,
        reply_to_message_id=reply_to,
        group_id="",
        created_at=time.time(),
        ttl=30.0 if reply_to else 60.0,
        message_type="query",
    )
    content = RecordDict({"facts": ConfigRecord({"to": str(to), "at": time.time()})})
    message = make_message(metadata=metadata, content=content)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message_to_proto(remove_content_from_message(message)), get_object_tree(message)
