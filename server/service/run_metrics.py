"""Runs' files on disk turned into the coordinator's metrics.

Public: Follower.
"""

from __future__ import annotations

from datetime import datetime

from server.files.folder import Folder
from server.files.status_reader import RunStatus, RunView, view_of
from server.service.prometheus_metrics import CoordinatorMeters


class Follower:
    """Counts what happened since the last look; what happened before the first is not counted."""

    def __init__(self, folder: Folder, meters: CoordinatorMeters) -> None:
        self._folder = folder
        self._meters = meters
        self._before = self._views()

    def look(self) -> None:
        """Look at every run; the service calls it about once a second."""
        now = self._views()
        for name, view in now.items():
            self._compare(self._before.get(name), view)
        self._meters.runs(view.facts.state for view in now.values())
        self._before = now

    def _views(self) -> dict[str, RunView]:
        names = self._folder.run_names()
        return {name: view_of(self._folder.run(name)) for name in names}

    def _compare(self, before: RunView | None, now: RunView) -> None:
        done = before.rounds[-1].round if before is not None and before.rounds else 0
        for record in now.rounds:
            if record.round > done:
                self._meters.round_done(record.updates, record.left_out)
        if now.status is None:
            return
        old = before.status if before is not None else None
        self._count_bytes(old, now.status)
        if old is not None and old.since and (old.phase, old.since) != _phase(now.status):
            self._meters.took(old.phase, _seconds(old.since, now.status.since))
        if not now.is_over:
            told = {name: site.epsilon for name, site in now.status.sites.items()}
            self._meters.told({name: value for name, value in told.items() if value is not None})

    def _count_bytes(self, old: RunStatus | None, now: RunStatus) -> None:
        for name, site in now.sites.items():
            was = old.sites.get(name) if old is not None else None
            sent, received = (was.bytes_sent, was.bytes_received) if was is not None else (0, 0)
            if site.bytes_sent < sent or site.bytes_received < received:
                sent, received = 0, 0  # a run that goes on counts anew
            self._meters.moved(
                name, sent=site.bytes_sent - sent, received=site.bytes_received - received
            )


def _phase(status: RunStatus) -> tuple[str, str]:
    return status.phase, status.since


def _seconds(start: str, end: str) -> float:
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
