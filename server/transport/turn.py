"""Turn of a run at its service: a place among the runs at work, and sites that have room for it.

The run's process asks before each phase, over a socket that it was started with: one line of JSON,
and one in return, at once.

    {"ready": {SITE: LIMIT or null, ...}, "least": N}    may it work with so many of these now?
    {"sites": [SITE, ...]}                               yes, with these
    {"sites": []}                                        no: it is in the queue, run.json says why
    {"ready": {}, "least": 0}                            it waits for sites; others may go first
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Protocol

from common.platform.errors import LinkDown

#: The environment's name for the number of the socket.
QUEUE = "WARDROUND_QUEUE"


class RunTurn(Protocol):
    """Whether a run may work now."""

    def take(self, ready: Mapping[str, int | None], least: int) -> tuple[str, ...]:
        """Return the sites to work with, at least so many of those that are ready, or none yet.

        `ready` has how many runs each site serves at once, None for any number.
        """
        ...

    def give_way(self) -> None:
        """Let other runs go first until `take` is called again."""
        ...


class AlwaysItsTurn:
    """The turn of a process that no queue has started."""

    def take(self, ready: Mapping[str, int | None], least: int) -> tuple[str, ...]:
        """Return all of them."""
        del least
        return tuple(sorted(ready))

    def give_way(self) -> None:
        """Nobody waits."""


class QueuedTurn:
    """The turn that a service gives (server/service/run_queue.py); LinkDown when it is gone."""

    def __init__(self, service: socket.socket) -> None:
        self._service = service
        self._said = service.makefile("r", encoding="utf-8")

    def take(self, ready: Mapping[str, int | None], least: int) -> tuple[str, ...]:
        """Ask the service."""
        return self._ask(ready, least)

    def give_way(self) -> None:
        """Tell the service."""
        self._ask({}, 0)

    def _ask(self, ready: Mapping[str, int | None], least: int) -> tuple[str, ...]:
        asked = json.dumps({"ready": dict(ready), "least": least}) + "\n"
        try:
            self._service.sendall(asked.encode())
            line = self._said.readline()
        except OSError as error:
            message = f"The service does not answer: {error}."
            raise LinkDown(message) from error
        if not line:
            message = "The service has closed this run's place in the queue."
            raise LinkDown(message)
        return tuple(sorted(json.loads(line)["sites"]))


def turn_of_this_process() -> RunTurn:
    """Return the turn that this process was started with."""
    number = os.environ.get(QUEUE)
    return AlwaysItsTurn() if number is None else QueuedTurn(socket.socket(fileno=int(number)))
