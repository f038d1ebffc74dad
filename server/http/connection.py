"""HTTP connection of uvicorn, with bounds on sizes, times and requests.

Each step has its own:

    head      the request's line and headers           HEAD_SECONDS, HEAD_BYTES
    body      what is announced                        a known caller BODY_BYTES_PER_SECOND at least
    answer    the application works; bytes are read    some byte within UNREAD_SECONDS
    idle      between two requests                     a stranger IDLE_SECONDS

The door looks once a second, and ends what is overdue.
"""

from __future__ import annotations

import asyncio
from typing import Literal, cast

from starlette.types import Scope
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable
from uvicorn._types import Scope as UvicornScope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.http.asgi import PLACE
from server.http.connection_limits import DoorPlace

#: A site's request has some 600 bytes of headers.
HEAD_BYTES = 16 * 1024
HEAD_SECONDS = 10.0
#: A slow line must do; one that stands still need not.
BODY_BYTES_PER_SECOND, BODY_GRACE_SECONDS = 512, 30.0
UNREAD_SECONDS = 60.0
IDLE_SECONDS = 5.0
#: A stranger asks for the certificate, joins, and asks where it stands.
STRANGERS_REQUESTS = 8

Step = Literal["head", "body", "answer", "idle"]


class HeadTooLarge(Exception):
    """uvicorn answers 400 and closes, as it does to all that is no HTTP."""


class Connection(HttpToolsProtocol):
    """One connection; its place says whether it has shown a key."""

    def __init__(self, config: Config, server_state: ServerState, place: DoorPlace) -> None:
        super().__init__(config=config, server_state=server_state, app_state={})
        self._place = place
        self._step: Step = "head"
        self._since = 0.0
        self._beyond = 0  # bytes since the request began that are not its body's
        self._headers = 0  # bytes of headers that are whole
        self._body = 0
        self._requests = 0
        self._unread = 0
        self._unread_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the place."""
        super().connection_made(transport)
        self._place.connection = self
        self._enter("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Give it back."""
        super().connection_lost(exc)
        self._place.leave()

    def data_received(self, data: bytes) -> None:
        """Read on, unless what came is longer than any head may be."""
        if self.transport.is_closing():
            return
        self._beyond += len(data)
        super().data_received(data)
        if self._beyond > HEAD_BYTES and not self.transport.is_closing():
            self._place.turn_away("head_too_large")

    def overdue(self, now: float, *, known: bool) -> str | None:
        """Return what it does not do in its time."""
        seconds = now - self._since
        match self._step:
            case "head" if seconds > HEAD_SECONDS:
                return "head_too_slow"
            case "body" if seconds > BODY_GRACE_SECONDS and (
                not known or self._body < seconds * BODY_BYTES_PER_SECOND
            ):
                return "body_too_slow"
            case "idle" if not known and seconds > IDLE_SECONDS:
                return "idle"
            case _:
                return self._unread_too_long(now)

    def drop(self) -> None:
        """End it now; a peer that reads nothing is not waited for."""
        self.transport.abort()

    # --- what httptools tells ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        cast("Scope", self.scope)["state"][PLACE] = self._place
        self._beyond = self._headers = self._body = 0
        self._requests += 1
        if self._step == "idle":  # the first one's time began with the connection
            self._enter("head")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or one that trails the body."""
        self._headers += len(name) + len(value) + 4
        if self._headers + len(self.url) > HEAD_BYTES:
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._enter("body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._beyond -= len(body)
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Leave the rest to the application."""
        self._enter("answer")
        self._beyond = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, if there may be one."""
        self._enter("idle")
        super().on_response_complete()
        if self._place.known is None and self._requests >= STRANGERS_REQUESTS:
            self.transport.close()

    # ----------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Answer; that the caller hung up meanwhile is no fault to be logged."""

        async def until_gone(
            scope: UvicornScope, receive: ASGIReceiveCallable, send: ASGISendCallable
        ) -> None:
            try:
                await app(scope, receive, send)
            except Exception:
                if not cycle.transport.is_closing():
                    raise
                cycle.disconnected = True

        super()._start_asgi_task(cycle, until_gone)

    def _enter(self, step: Step) -> None:
        self._step, self._since = step, self.loop.time()

    def _unread_too_long(self, now: float) -> str | None:
        left = self.transport.get_write_buffer_size()
        if left == 0 or left != self._unread:
            self._unread, self._unread_since = left, now
            return None
        return "answer_not_read" if now - self._unread_since > UNREAD_SECONDS else None
