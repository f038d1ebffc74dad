"""Flower's SuperLink in this process.

No subprocess, no telemetry, no installing at run time, no listener of its own. Sites are
nodes with their key; a run is a Flower run whose only task is claimed here at once, so that
nobody else can take it. What Flower keeps in superlink.db can be lost: sites stay enrolled
(enrolment.db) and runs resume from their own state.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Flower is imported: it reports its use to its makers unless told not to.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, Status
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import Metadata, PullObjectRequest, PushObjectRequest
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.fab import Fab
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from google.protobuf.message import DecodeError
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import Pool
from starlette.types import ASGIApp

from common.messages.flower_messages import object_ids
from common.messages.signing_key import public_pem
from common.platform.code_hash import RELEASE, bundle, bundle_hash
from common.platform.errors import LinkDown, RunFailed, StateDamaged, TrustRefused
from server.service.answer_allowances import Allowances, Overdraft
from server.service.calls.frequent_calls import FLEET_PULL, FLEET_PUSH, FLEET_PUSH_OBJECT
from server.service.calls.object_files import ObjectFiles
from server.service.site_authentication import Member
from server.service.task_leases import LeasingState


class _NoLifespan:
    """Stands where Flower would start a subprocess and more listeners."""

    def __init__(self, config: SuperLinkLifespanConfig, factory: LinkStateFactory) -> None:
        del config, factory

    def startup(self) -> None:
        """Start nothing."""

    def shutdown(self) -> None:
        """Stop nothing."""


@dataclass(frozen=True, kw_only=True)
class FlowerRun:
    """A run as Flower knows it, and what its process shows to be its process."""

    number: int
    token: str


class SuperLink:
    """Flower's application and state; the guards and listeners stand around it."""

    def __init__(self, database: Path) -> None:
        config = _config(database)
        try:
            fastapi = create_app(config, _NoLifespan)  # type: ignore[arg-type]  # only these two are called
            factory: LinkStateFactory = fastapi.state.linkstate_factory
            objects = ObjectFiles(str(database), database.with_name("objects"))
            objects.initialize()
            objects.begin()
            state = LeasingState(str(database), factory.federation_manager, objects)
            state.initialize()
        except DatabaseError as error:
            message = (
                f"{database} cannot be used: {error.orig}. Move it away: a new one is made, sites "
                "stay enrolled and runs can be resumed."
            )
            raise StateDamaged(message) from error
        self.app: ASGIApp = fastapi
        self.routes = tuple(route.path for route in fastapi.routes if hasattr(route, "path"))
        factory.state_instance = state  # every call of Flower's asks the factory for it
        self.state: LeasingState = state

    def register(self, site: str, public_key: str) -> Member:
        """Make an accepted site a node of Flower's, once."""
        pem = public_pem(public_key)
        node_id = self.state.get_node_id_by_public_key(pem)
        if node_id is None:
            try:
                node_id = self.state.create_node(
                    NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, pem, 0, name=site
                )
            except ValueError as error:  # a key that was revoked once stays in Flower's list
                message = f"The key of {site} was revoked before. It needs a new key."
                raise TrustRefused(message) from error
        return Member(site=site, node_id=node_id, public_key=public_key)

    def unregister(self, public_key: str) -> None:
        """Take a site's node out; its messages are no longer taken or given."""
        node_id = self.state.get_node_id_by_public_key(public_pem(public_key))
        if node_id is not None:
            self.state.delete_node(NOOP_FLWR_AID, node_id)

    def online(self) -> frozenset[str]:
        """Return the sites that called within their last two heartbeats."""
        nodes = self.state.get_node_info(statuses=[NodeStatus.ONLINE])
        return frozenset(node.name for node in nodes)

    def start_run(self, name: str) -> FlowerRun:
        """Create a run with our code-free bundle and claim its task.

        LinkDown where the database cannot be written, as on a full disk.
        """
        with _written():
            return self._started(name)

    def _started(self, name: str) -> FlowerRun:
        self.state.store_fab(Fab(bundle_hash(), bundle(), {}))
        number = self.state.create_run(
            "wardround/wardround",
            RELEASE,
            bundle_hash(),
            {"run": name},
            NOOP_FEDERATION_ID,
            None,
            NOOP_FLWR_AID,
            TaskType.SERVER_APP,
        )
        found = self.state.get_run_info(run_ids=[number]) if number else []
        task = found[0].primary_task_id if found else None
        token = self.state.claim_task(task) if task is not None else None
        if token is None:
            message = f"Flower did not begin a run for {name}. Try again; its log says more."
            raise RunFailed(message)
        return FlowerRun(number=number, token=token)

    def stop_run(self, number: int) -> None:
        """End a run, if it goes on, and delete its messages; its tensors once nobody wants them.

        LinkDown as above.
        """
        with _written():
            if not self.state.stop_run(number):
                self.state.cleanup_run(number)
            self.state.forget_left_objects()

    def stop_all_runs(self) -> None:
        """End what a coordinator left behind that was killed."""
        left = self.state.get_run_info(statuses=[Status.PENDING, Status.STARTING, Status.RUNNING])
        for run in left:
            self.stop_run(run.run_id)
        self.state.forget_left_objects()


@contextmanager
def _written() -> Iterator[None]:
    """Say of a database that cannot be written what a person can act on."""
    try:
        yield
    except DatabaseError as error:
        message = f"superlink.db cannot be written: {error.orig}."
        raise LinkDown(message) from error


@event.listens_for(Pool, "checkout")
def _keep_little(connection: Any, record: Any, _proxy: object) -> None:  # noqa: ANN401 - SQLAlchemy's
    """Let a connection cache 2 MiB; Flower's 64 MiB and 256 MiB mapped are for each of dozens."""
    if not record.info.get("keeps_little"):
        record.info["keeps_little"] = True
        connection.execute("PRAGMA cache_size = -2000")
        connection.execute("PRAGMA mmap_size = 0")


def refusal_of(
    path: str, body: bytes, size: int | None, member: Member, allowances: Allowances
) -> Overdraft | None:
    """Return why a site's call is refused: it answers, in its own name, what it was asked.

    `size` is what an answer is announced to have, in bytes.
    """
    try:
        if path == FLEET_PUSH_OBJECT:
            content = PushObjectRequest.FromString(body)
            held = len(content.object_content)
            return allowances.take(member.node_id, content.object_id, held)
        if path == FLEET_PUSH:
            return _refusal_of_push(PushMessagesRequest.FromString(body), size, member, allowances)
        if (
            path == FLEET_PULL
            and PullMessagesRequest.FromString(body).node.node_id != member.node_id
        ):
            # Flower is not asked where it had nothing the last time, so it is checked here.
            return Overdraft(status=401, detail="The pull is in another site's name.")
    except DecodeError:
        return Overdraft(status=403, detail="The call cannot be read.")
    return None


def _refusal_of_push(
    request: PushMessagesRequest, size: int | None, member: Member, allowances: Allowances
) -> Overdraft | None:
    for message in request.messages_list:
        fault = _fault_of(message.metadata, member)
        if fault:
            return Overdraft(status=403, detail=fault)
    if request.node.node_id != member.node_id:
        return Overdraft(status=403, detail="The push is in another site's name.")
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        return Overdraft(status=403, detail="A push is one message and its objects.")
    (message,), (tree,) = request.messages_list, request.message_object_trees
    if any(part.children for record in tree.children for part in record.children):
        return Overdraft(status=403, detail="The objects are no message of ours.")
    return allowances.announce(
        member.node_id,
        message.metadata.reply_to_message_id,
        message.metadata.message_id,
        object_ids(tree),
        size,
    )


def _fault_of(metadata: Metadata, member: Member) -> str:
    if metadata.src_node_id != member.node_id:
        return "The message is in another site's name."
    if not metadata.reply_to_message_id:
        return "A site answers messages and sends none of its own."
    if not math.isfinite(metadata.created_at) or not math.isfinite(metadata.ttl):
        # SQLite keeps nan as nothing, and Flower's next look at all answers of the run would fail.
        return "The message is of no time."
    return ""


def asked_of(body: bytes) -> dict[str, int]:
    """Return the messages that a run pushes, by name, each with the node that it is for."""
    try:
        request = PushAppMessagesRequest.FromString(body)
    except DecodeError:
        return {}
    return {m.metadata.message_id: m.metadata.dst_node_id for m in request.messages_list}


def wanted_object(body: bytes) -> str:
    """Return the name of the object that a run asks for."""
    try:
        return str(PullObjectRequest.FromString(body).object_id)
    except DecodeError:
        return ""


def _config(database: Path) -> SuperLinkLifespanConfig:
    return SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=False,
        certificates=None,  # the listeners are ours
        superexec_auth_secret=secrets.token_bytes(32),  # nobody knows it: no task is given out
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(database),
        isolation="process",
        runtime_dependency_install=False,
    )
