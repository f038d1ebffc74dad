"""Listening for requests: a pull that waits in a thread of its own, whatever else the site does.

A coordinator answers a pull when there is something, or after twenty seconds, and takes the wait
for a heartbeat. So a site that has nothing to do makes three calls a minute and hears of a request
at once, and one that is in the midst of a long upload is no less there.

    the thread      pull, hand over, wait until it is on disk, pull again
    `pull`          returns what was handed over, or nothing within its time
    an error        is raised by the next `pull`; the thread tries again at the one after that
"""

from __future__ import annotations

import threading

from cryptography.hazmat.primitives.asymmetric import ec

from client.transport.fleet_client import FleetClient, PendingMessage
from client.transport.proxy import Way
from common.messages.pull_headers import LONGEST_WAIT_SECONDS


class ListeningClient(FleetClient):
    """The calls, with a pull that never ends; `close` ends it."""

    def __init__(
        self, address: str, authority: str, key: ec.EllipticCurvePrivateKey, way: Way | None = None
    ) -> None:
        super().__init__(address, authority, key, way)
        self._wanted, self._came, self._over = (threading.Event() for _ in range(3))
        self._found: PendingMessage | Exception | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True, name="listening")
        self.listens = False  # whether a pull is under way

    def activate(self) -> int:
        """Say that the site is here, and begin to listen."""
        number = super().activate()
        if not self._thread.is_alive():
            self._thread.start()
        return number

    def close(self) -> None:
        """End the thread with its present pull, and the connections."""
        self._over.set()
        self._wanted.set()
        super().close()

    def pull(self, wait_seconds: float) -> PendingMessage | None:
        """Return the next message, or None when none comes within so many seconds."""
        self._wanted.set()
        if not self._came.wait(wait_seconds):
            return None
        found, self._found = self._found, None
        self._came.clear()
        if isinstance(found, Exception):
            raise found
        return found

    def received(self) -> None:
        """Note that the last message is on disk; the next pull says so."""
        super().received()
        self._wanted.set()

    def _listen(self) -> None:
        while not self._over.is_set():
            self._wanted.wait()
            self.listens = True
            found: PendingMessage | Exception | None = None
            try:
                while found is None and not self._over.is_set():
                    found = super().pull(LONGEST_WAIT_SECONDS)
            except Exception as error:  # noqa: BLE001 - whoever pulls meets it, and decides
                found = error
            self.listens = False
            self._wanted.clear()
            self._found = found
            self._came.set()
