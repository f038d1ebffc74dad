"""Images that arrive of a series, until they are written down in the queue."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Self

from client.dicom.reasons import UnusableFile
from client.pacs.fsync import Flusher, boot
from client.pacs.pull_queue import Queue
from client.pacs.rate_limit import Pace
from client.pacs.received_file import Landed

#: Instances that are written down together.
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ArrivalNotes:
    """Where it is noted what came."""

    queue: Queue
    flusher: Flusher  # running


class ArrivalBatch:
    """What arrives of one series, until it is written down; leaving it writes down the rest."""

    def __init__(self, notes: ArrivalNotes, pace: Pace) -> None:
        self._notes, self._pace, self._boot = notes, pace, boot()
        self._lock = threading.Lock()
        self._held: list[Landed] = []
        self.problems: list[UnusableFile] = []
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.flush()

    def wait(self) -> None:
        """Return when the next object may be taken."""
        self._pace.wait()

    def landed(self, one: Landed) -> None:
        """Take note of an object that is in its place."""
        self._pace.arrived()
        with self._lock:
            self._held.append(one)
            self.count += 1
            full = len(self._held) >= _BATCH
        if full:
            self.flush()

    def refused(self, problem: UnusableFile) -> None:
        """Take note of an object that is no usable file."""
        with self._lock:
            self.problems.append(problem)

    def flush(self) -> None:
        """Write down what is held, and let it reach the disk."""
        with self._lock:
            held, self._held = self._held, []
        if held:
            self._notes.queue.acknowledge(held, self._boot)
            self._notes.flusher.flush(held)
