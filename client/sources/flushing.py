"""Files reach the disk behind the pull's back, as waiting for it would cost more than fetching.

An image counts as here once its file is whole and has its name: that outlasts the end of any
process. It also outlasts a loss of power once it was flushed, which the queue notes; after a loss
of power, files that were not are looked at again before they count.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from client.sources.landing import Landed, durable
from client.sources.queue import Queue

#: Batches that may wait; a disk that is slower than the PACS slows the pull from there on.
_BACKLOG = 8


def boot() -> str:
    """Return what tells this start of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Flusher:
    """Flushes batches in a thread; leaving it waits until all are on the disk."""

    def __init__(self, queue_of_site: Queue) -> None:
        self._queue = queue_of_site
        self._batches: queue.Queue[Sequence[Landed] | None] = queue.Queue(_BACKLOG)
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._batches.put(None)
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def flush(self, landed: Sequence[Landed]) -> None:
        """Take a batch; waits when too many do."""
        self._batches.put(landed)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                durable([one.path for one in batch])
                self._queue.flushed(batch)
            except OSError as error:  # the batch stays unflushed; the others may do
                self._failure = self._failure or error
