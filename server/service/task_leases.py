"""Flower's state, with what we know better: leases of runs' tasks, daemons that start, objects.

Flower gives a run up whose process says nothing for a minute, as after a pause of the machine,
and cannot know whether it lives. The supervisor can: it started the process, waits for its end,
and then ends the run (server/service/supervision.py). What a service left behind that was killed
is ended at its next start.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection
from datetime import datetime, timedelta

# Before Flower is imported: it reports its use to its makers unless told not to.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.common.constant import HEARTBEAT_PATIENCE, SubStatus
from flwr.server.superlink.linkstate import SqlLinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.date import now
from flwr.supercore.state.schema.corestate_models import Task as TaskModel
from flwr.supercore.state.schema.linkstate_models import Node as NodeModel
from flwr.supercore.state.schema.linkstate_models import Run as RunModel
from flwr.supercore.state.schema.objectstore_models import RunObject
from flwr.supercore.utils import int64_to_uint64, uint64_to_int64
from flwr.superlink.federation import FederationManager
from sqlalchemy import case, select, update

from common.messages.pull_headers import HEARTBEAT_SECONDS
from common.platform.logs import log
from server.service.calls.object_files import ObjectFiles

_LOOK_SECONDS = 1.0
#: What a run that did not end well was sent is kept so long for the one that goes on with it.
KEPT_SECONDS = 24 * 3600.0
_WITHOUT_END = timedelta(days=100 * 365)


class LeasingState(SqlLinkState):
    """Flower's state in SQLite; a task is its process's until it is finished or stopped."""

    def __init__(
        self, database: str, federation_manager: FederationManager, objects: ObjectFiles
    ) -> None:
        super().__init__(database, federation_manager, objects)
        self._objects = objects
        self._looked_at = -math.inf

    def claim_task(self, task_id: int) -> str | None:
        """Claim a task that nobody has; returns its token."""
        with self.session():
            token = super().claim_task(task_id)
            if token is not None:
                self._lease(task_id)
        return token

    def activate_task(self, task_id: int) -> bool:
        """Move a task from starting to running."""
        with self.session():
            activated = super().activate_task(task_id)
            if activated:
                self._lease(task_id)
        return activated

    def acknowledge_task_heartbeat(self, task_id: int) -> bool:
        """Say whether a task is under way; its lease stays as it is."""
        with self.session():
            known = super().acknowledge_task_heartbeat(task_id)
            if known:
                self._lease(task_id)
        return known

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Note that a site's daemon starts; it takes the place of one that counts as here.

        Flower refuses while the node is online, and a site that heard no answer the first time
        would be refused for good: each of its calls says anew that it is online.
        """
        with self.session():
            return super().activate_node(node_id, heartbeat_interval) or (
                super().deactivate_node(node_id)
                and super().activate_node(node_id, heartbeat_interval)
            )

    def acknowledge_nodes(self, nodes: Collection[int]) -> None:
        """Take a heartbeat of each of several nodes, in one statement.

        What it sets is what `acknowledge_node_heartbeat` sets for one of them.
        """
        at = now()
        with self.session() as session:
            session.execute(
                update(NodeModel)
                .where(
                    NodeModel.node_id.in_([uint64_to_int64(node) for node in nodes]),
                    NodeModel.status != NodeStatus.UNREGISTERED,
                )
                .values(
                    online_until=at.timestamp() + HEARTBEAT_PATIENCE * HEARTBEAT_SECONDS,
                    heartbeat_interval=HEARTBEAT_SECONDS,
                    last_activated_at=case(
                        (NodeModel.status != NodeStatus.ONLINE, at.isoformat()),
                        else_=NodeModel.last_activated_at,
                    ),
                    status=NodeStatus.ONLINE,
                )
                .execution_options(synchronize_session=False)
            )

    def store_object(
        self, run_id: int, session_id: str, object_id: str, object_content: bytes
    ) -> bool:
        """Keep an object that was announced; its file is written before Flower's transaction."""
        try:
            with self._objects.staged(object_id, object_content):
                return super().store_object(run_id, session_id, object_id, object_content)
        except (OSError, ValueError) as error:  # a full disk, or another object than its name says
            log(__name__).error("object not kept", object=object_id, why=str(error))
            return False

    def cleanup_run(self, run_id: int) -> None:
        """Forget a run's messages; its objects, too, if it came to its end.

        A run that goes on after a stop or a crash is another one for Flower, and asks the same
        again. What it was sent by then is here, by its hash, and is not sent a second time.
        """
        self.delete_messages(self.get_message_ids_from_run_id(run_id))
        self.delete_sessions_in_run(run_id)
        status = self.get_run_status({run_id}).get(run_id)
        if status is None or status.sub_status == SubStatus.COMPLETED:
            for number in self._attempts_at(run_id):
                self._objects.delete_objects_in_run(number)

    def _attempts_at(self, run_id: int) -> list[int]:
        """Return the numbers that a run has had so far: each attempt at it is a run of Flower's."""
        own = select(RunModel.override_config).where(RunModel.run_id == uint64_to_int64(run_id))
        same = select(RunModel.run_id).where(
            RunModel.override_config == own.scalar_subquery(),
            RunModel.run_id.in_(select(RunObject.run_id)),
        )
        with self.session() as session:
            return [int64_to_uint64(number or 0) for number in session.scalars(same).all()]

    def forget_left_objects(self, seconds: float = KEPT_SECONDS) -> None:
        """Delete the objects of runs that ended so long ago and did not go on."""
        left = (
            select(RunModel.run_id)
            .join(TaskModel, TaskModel.task_id == RunModel.primary_task_id)
            .where(
                TaskModel.finished_at < now() - timedelta(seconds=seconds),
                RunModel.run_id.in_(select(RunObject.run_id)),
            )
        )
        with self.session() as session:
            runs = [int64_to_uint64(number or 0) for number in session.scalars(left).all()]
        for run in runs:
            self._objects.delete_objects_in_run(run)

    def _claim_pending_object(
        self, run_id: int, session_id: str, object_id: str
    ) -> datetime | None:
        """Claim an object; an upload that a line cuts for hours goes on where it was."""
        claimed = super()._claim_pending_object(run_id, session_id, object_id)
        return None if claimed is None else now() + _WITHOUT_END

    def _cleanup_push_session(self, session_id: str, *, cleanup_messages: bool) -> None:
        """End an upload that is whole or was begun anew; the run's process gives others up."""
        if not cleanup_messages:
            super()._cleanup_push_session(session_id, cleanup_messages=False)

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Count no bytes: nobody reads Flower's numbers, and each would be a transaction."""

    def _cleanup_expired_task_tokens(self) -> None:
        """Look for leases that are over once a second, not in each call."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            super()._cleanup_expired_task_tokens()

    def _lease(self, task_id: int) -> None:
        with self.session() as session:
            session.execute(
                update(TaskModel)
                .where(TaskModel.task_id == uint64_to_int64(task_id))
                .values(active_until=now() + _WITHOUT_END)
            )
