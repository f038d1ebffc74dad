"""Rate and hours at which the PACS may be asked, for all threads together."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from client.pacs.image_source import Halt
from client.site.hours import within
from client.site.pacs_section import PacsConfig

#: Pauses after a cut: growing, so that a PACS that starts again is not pressed.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
#: How long nothing may arrive before a pull ends.
PATIENCE_SECONDS = 1800.0
_LOOK_SECONDS = 5.0


class Pace:
    """Rate, hours, and the wish to end."""

    def __init__(self, pacs: PacsConfig) -> None:
        self._hours = pacs.hours
        self._seconds = 1 / pacs.images_per_second if pacs.images_per_second else 0.0
        self._lock = threading.Lock()
        self._next = 0.0
        self._stop = threading.Event()
        self._last = time.monotonic()

    def stop(self) -> None:
        """Let every thread end at its next object."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether it is to end."""
        return self._stop.is_set()

    @property
    def open(self) -> bool:
        """Whether the PACS may be asked now."""
        return within(self._hours, datetime.now(UTC))

    def wait(self) -> None:
        """Return when the next object may be taken; Halt when none may."""
        if self.stopped or not self.open:
            raise Halt
        if not self._seconds:
            return
        with self._lock:
            begin = max(time.monotonic(), self._next)
            self._next = begin + self._seconds
        if self._stop.wait(max(0.0, begin - time.monotonic())):
            raise Halt

    def pause(self, seconds: float) -> None:
        """Wait so long, or until it is to end."""
        self._stop.wait(seconds)

    def until_open(self) -> None:
        """Wait for the PACS's hours."""
        while not self.open and not self.stopped:
            self._stop.wait(_LOOK_SECONDS)

    def arrived(self) -> None:
        """Take note that something came."""
        self._last = time.monotonic()

    @property
    def patient(self) -> bool:
        """Whether it is worth waiting longer."""
        return time.monotonic() - self._last < PATIENCE_SECONDS


def pause_seconds(tries: int) -> float:
    """Return how long to wait after so many failures in a row, from 1 on."""
    return float(min(FIRST_PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE_SECONDS))
