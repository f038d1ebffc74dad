"""Client of Flower's Fleet API: one method a call. The seam to Flower at a site.

Flower's own SuperNode is not used: it sleeps three seconds between looks, keeps messages in
memory only, drops a reply that it could not send, and stores a run's code before anyone looks at
it. These calls are the same that it makes, with the same signed headers; a site asks for the
hash of a run's code and never for the code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Metadata
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.transport.bounded_response import bound_response
from client.transport.connecting import open_client
from client.transport.connection import tls_context, why_not_reached, why_unknown
from client.transport.headers import NodeHeaders, PullHeaders, Signing
from client.transport.proxy import Way
from common.messages.flower_http import on_client
from common.messages.flower_messages import object_ids, record_of
from common.messages.pull_headers import HEARTBEAT_SECONDS
from common.messages.signed_envelope import Envelope
from common.platform.errors import LinkDown, RunGone, SiteUnknown

#: A call that takes longer is cut and tried again; an object has at most 5 MB.
_CALL_SECONDS = 30.0
#: What every answer says of the time that it took.
_NO_SECONDS = 0.0
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class PendingMessage:
    """A message of the coordinator's, its objects still to be fetched."""

    message: bytes  # Flower's message without content, as it came
    tree: bytes  # names of its objects, as they came

    @property
    def id(self) -> str:
        """Return the message's name."""
        return str(self._proto().metadata.message_id)

    @property
    def run_id(self) -> int:
        """Return the number that Flower gave the run."""
        return int(self._proto().metadata.run_id)

    @property
    def objects(self) -> list[str]:
        """Return the names of its objects."""
        return object_ids(ObjectTree.FromString(self.tree))

    @property
    def created_at(self) -> float:
        """Return when it was made, in seconds since 1970."""
        return float(self._proto().metadata.created_at)

    @property
    def ends(self) -> float:
        """Return until when an answer is taken, in seconds since 1970."""
        metadata = self._proto().metadata
        return float(metadata.created_at) + float(metadata.ttl)

    @property
    def fault(self) -> str:
        """Return why Flower could make no answer to it; empty where it can."""
        try:
            message_from_proto(self._proto())
        except Exception as error:  # noqa: BLE001 - Flower raises kinds of its own
            return f"{type(error).__name__}: {error}"[:200]
        return ""

    def _proto(self) -> MessageProto:
        proto: MessageProto = MessageProto.FromString(self.message)
        return proto


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer in Flower's form: the same answer to the same delivery is the same bytes."""

    message: bytes
    tree: bytes
    objects: dict[str, bytes]


class FleetClient:
    """The calls, over TLS 1.3 with the coordinator's own authority, signed with the site's key.

    LinkDown when the coordinator cannot be reached, SiteUnknown when it does not take this
    site's key, RunGone when the run that a call is for is over.
    """

    def __init__(
        self, address: str, authority: str, key: ec.EllipticCurvePrivateKey, way: Way | None = None
    ) -> None:
        self._address = address
        self._way = way or Way()
        self._public = public_key_to_bytes(key.public_key())
        self._receipts = PullHeaders()
        calls = FleetHttpClient(
            f"https://{address}", interceptors=[NodeHeaders(key), self._receipts, Signing(key)]
        )
        client = open_client(tls_context(authority), _CALL_SECONDS, self._way)
        client.event_hooks["response"].append(bound_response)
        self._client = on_client(calls, client)
        self._node: Node | None = None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def activate(self) -> int:
        """Say that the site is here; returns its number, which stays the same."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_SECONDS)
        with self._explained():
            response = self._client.ActivateNode(request)
        self._node = Node(node_id=response.node_id)
        return int(response.node_id)

    def deactivate(self, node_id: int) -> None:
        """Say that the site leaves, or that an earlier process of it is gone."""
        with self._explained():
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))

    def heartbeat(self) -> None:
        """Say that the site is still here."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_SECONDS)
        with self._explained():
            self._client.SendNodeHeartbeat(request)

    def pull(self, wait_seconds: float) -> PendingMessage | None:
        """Return the next message, or None when none comes within so many seconds.

        It is given out again until `received` has said that it is safe here.
        """
        self._receipts.wait_seconds = wait_seconds
        with self._explained():
            response = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        delivery = PendingMessage(
            message=response.messages_list[0].SerializeToString(),
            tree=response.message_object_trees[0].SerializeToString(),
        )
        # They name files here.
        if not all(_HASH.fullmatch(name) for name in (delivery.id, *delivery.objects)):
            message = f"{self._address} sent a message with a name that is no SHA-256."
            raise LinkDown(message)
        return delivery

    def received(self) -> None:
        """Note that the last message is on disk; the next pull says so."""
        self._receipts.safe()

    def release_of(self, run_id: int) -> str:
        """Return the hash of the code that a run was begun with."""
        with self._explained():
            response = self._client.GetRun(GetRunRequest(node=self._node, run_id=run_id))
        return str(response.run.fab_hash)

    def fetch(self, run_id: int, name: str) -> bytes | None:
        """Return one object, None while it is on its way; RunGone when it is there no more."""
        request = PullObjectRequest(node=self._node, run_id=run_id, object_id=name)
        with self._explained():
            response = self._client.PullObject(request)
        if not response.object_found:
            message = f"The coordinator no longer has object {name[:12]} of the request."
            raise RunGone(message)
        if not response.object_available:
            return None
        content = bytes(response.object_content)
        if get_object_id(content) != name:
            message = f"Object {name[:12]} came damaged."
            raise LinkDown(message)
        return content

    def confirm(self, delivery: PendingMessage) -> None:
        """Say that all of a message is here."""
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=delivery.run_id, message_object_id=delivery.id
        )
        with self._explained():
            self._client.ConfirmMessageReceived(request)

    def offer(self, reply: Reply) -> tuple[list[str], str]:
        """Announce an answer; returns the objects that are wanted, and a session to give them.

        RunGone when nobody waits for it any more.
        """
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[MessageProto.FromString(reply.message)],
            message_object_trees=[ObjectTree.FromString(reply.tree)],
            # Flower wants the seconds of work, which follow how many patients were drawn.
            clientapp_runtime_list=[_NO_SECONDS],
        )
        self._receipts.answer_bytes = sum(map(len, reply.objects.values()))
        with self._explained():
            response = self._client.PushMessages(request)
        return list(response.objects_to_push), str(response.session_id)

    def give(self, run_id: int, session: str, name: str, content: bytes) -> bool:
        """Send one object; False when it is not wanted (any more)."""
        request = PushObjectRequest(
            node=self._node,
            run_id=run_id,
            object_id=name,
            object_content=content,
            session_id=session,
        )
        with self._explained():
            return bool(self._client.PushObject(request).stored)

    @property
    def is_heartbeat(self) -> bool:
        """Whether the coordinator takes a pull that waits for a heartbeat."""
        return self._receipts.is_heartbeat

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what httpx raises into what a person can act on."""
        try:
            yield
        except httpx.TransportError as error:
            raise LinkDown(why_not_reached(self._address, error, self._way.shown)) from error
        except httpx.HTTPStatusError as error:
            raise _refused(self._address, error.response) from error
        except ValueError as error:  # no protobuf
            message = f"{self._address} answered something else than a coordinator would: {error}"
            raise LinkDown(message) from error


def _refused(address: str, response: httpx.Response) -> Exception:
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return SiteUnknown(why_unknown(address, response))
    if response.status_code == httpx.codes.FORBIDDEN:
        return RunGone("The run that this is for is over at the coordinator.")
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return RunGone(f"{address} takes no answer of this size: {response.text[:200]}")
    return LinkDown(f"{address} answered {response.status_code}. Trying again.")


def reply_to(
    delivery: PendingMessage, envelope: Envelope, created_at: float, receipt: str = ""
) -> Reply:
    """Return an answer as Flower sends it; `created_at` is kept, so that it is the same again.

    It is the time of the request, not of the answer: that would say how long the work took.
    """
    asked = message_from_proto(MessageProto.FromString(delivery.message)).metadata
    metadata = Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=created_at,
        ttl=max(asked.created_at + asked.ttl - created_at, 1e-3),
        message_type=asked.message_type,
    )
    message = make_message(metadata=metadata, content=record_of(envelope, receipt))
    with no_object_id_recompute():
        objects = {n: o.deflate() for n, o in get_all_nested_objects(message).items()}
        tree = get_object_tree(message)
        message.metadata.__dict__["_message_id"] = message.object_id
    bare = message_to_proto(remove_content_from_message(message))
    return Reply(message=bare.SerializeToString(), tree=tree.SerializeToString(), objects=objects)
