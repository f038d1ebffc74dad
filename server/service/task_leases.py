"""Flower's state, with leases of runs' tasks that do not end by themselves.

Flower gives a run up whose process says nothing for a minute, as after a pause of the machine,
and cannot know whether it lives. The supervisor can: it started the process, waits for its end,
and then ends the run (server/service/supervision.py). What a service left behind that was killed
is ended at its next start.
"""

from __future__ import annotations

import os
from datetime import timedelta

# Before Flower is imported: it reports its use to its makers unless told not to.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

from flwr.server.superlink.linkstate import SqlLinkState
from flwr.supercore.date import now
from flwr.supercore.state.schema.corestate_models import Task as TaskModel
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import update

_WITHOUT_END = timedelta(days=100 * 365)


class LeasingState(SqlLinkState):
    """Flower's state in SQLite; a task is its process's until it is finished or stopped."""

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

    def _lease(self, task_id: int) -> None:
        with self.session() as session:
            session.execute(
                update(TaskModel)
                .where(TaskModel.task_id == uint64_to_int64(task_id))
                .values(active_until=now() + _WITHOUT_END)
            )
