"""Background fsync of files while a pull goes on.

An image counts as here once its file is whole and has its name: that outlasts the end of any
process. It also outlasts a loss of power once it was flushed, which the queue notes; after a loss
of power, files that were not are looked at again before they count.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from client.pacs.pull_queue import Queue
from client.pacs.received_file import Landed, durable

#: By then the kernel has written most of a file by itself (vm.dirty_expire_centisecs is 3000), and
#: flushing it keeps no other write waiting.
_REST_SECONDS = 35.0
_LOOK_SECONDS = 1.0


def boot() -> str:
    """Return what tells this start of the machine from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Flusher:
    """Flushes batches in a thread; leaving it waits until all are on the disk."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._batches: deque[tuple[float, Sequence[Landed]]] = deque()  # and when they came
        self._over = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def flush(self, landed: Sequence[Landed]) -> None:
        """Take a batch."""
        self._batches.append((time.monotonic(), landed))

    def _run(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self._flush_those_before(time.monotonic() - _REST_SECONDS)
        self._flush_those_before(time.monotonic())

    def _flush_those_before(self, moment: float) -> None:
        while self._batches and self._batches[0][0] <= moment:
            _, batch = self._batches.popleft()
            try:
                durable([one.path for one in batch])
                self._queue.flushed(batch)
            except OSError as error:  # the batch stays unflushed; the others may do
                self._failure = self._failure or error
