"""The TLS listeners for sites and for the operator, and a load balancer's way to the first."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from common.messages.flower_http import KEPT_SECONDS
from common.platform.errors import ConfigurationError, RunFailed
from server.enrolment.certificates import server_context
from server.files.coordinator_yaml import Settings, host_and_port
from server.files.folder import Folder
from server.http.accepting import Door
from server.http.connection import Connection
from server.http.connection_limits import DoorLimits, DoorPlace
from server.http.tunnel import Front

#: A site's daemon pulls again and again on one connection, and ends it first.
_KEEP_ALIVE_SECONDS = KEPT_SECONDS + 15
#: Requests that take longer are cut when the service stops; the site sends them again.
_GRACE_SECONDS = 3
_GOODBYE_SECONDS = 0.2


class _Server(uvicorn.Server):
    """Leaves signals to the service, which has two servers and runs to end; has a door."""

    def __init__(
        self,
        config: uvicorn.Config,
        context: ssl.SSLContext,
        limits: DoorLimits,
        front: socket.socket | None = None,
    ) -> None:
        super().__init__(config)
        self._context = context
        self._limits = limits
        self._front = front

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open a door for each socket, where uvicorn would let everybody in."""

        def connection(place: DoorPlace) -> Connection:
            return Connection(self.config, self.server_state, place)

        doors = [Door(s, self._context, connection, self._limits) for s in sockets or ()]
        fronts = [] if self._front is None else [Front(self._front, doors[0].let_in)]
        # close and wait_closed are called
        self.servers = cast("list[asyncio.Server]", [*fronts, *doors])
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way, then leave: an idle client may never say TLS's goodbye."""
        leaving = asyncio.ensure_future(super().shutdown(sockets=sockets))
        while not leaving.done():
            await asyncio.wait({leaving}, timeout=_GOODBYE_SECONDS)
            if not self.server_state.tasks:
                for connection in list(self.server_state.connections):
                    connection.transport.abort()
        await leaving


class Listeners:
    """Both servers, with sockets bound at once so that a taken port is known before all else."""

    def __init__(self, folder: Folder, settings: Settings) -> None:
        self._folder = folder
        self._limits = settings.door()
        self._context = server_context(folder)
        self._sockets: list[socket.socket] = []
        for address in (settings.listen, settings.operator, settings.front):
            try:
                if address is not None:
                    self._sockets.append(_bound(address))
            except ConfigurationError:
                self.close()
                raise
        self._servers: list[_Server] = []

    async def serve(self, site_app: ASGIApp, operator_app: ASGIApp) -> None:
        """Serve until `stop`."""
        site, operator, *front = self._sockets
        self._servers = [
            _Server(self._settings(site_app), self._context, self._limits, *front),
            _Server(self._settings(operator_app), self._context, self._limits),
        ]
        done = [
            asyncio.ensure_future(server.serve(sockets=[bound]))
            for server, bound in zip(self._servers, (site, operator), strict=True)
        ]
        try:
            await asyncio.wait(done, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stop()
        for outcome in await asyncio.gather(*done, return_exceptions=True):
            if isinstance(outcome, BaseException):
                message = "A listener ended by itself; the log says why. Start the service again."
                raise RunFailed(message) from outcome

    async def started(self) -> None:
        """Return once both answer."""
        while not (self._servers and all(server.started for server in self._servers)):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        """Take no new requests, finish those under way and return from `serve`."""
        for server in self._servers:
            server.should_exit = True

    def close(self) -> None:
        """Give the ports back, if `serve` never did."""
        for bound in self._sockets:
            bound.close()

    def renew(self) -> None:
        """Show a renewed certificate to whoever connects from now on."""
        self._context.load_cert_chain(self._folder.server_key)

    def _settings(self, app: ASGIApp) -> uvicorn.Config:
        return uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            # What a proxy says of a client is not believed: there is none.
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            http=Connection,
        )


def _bound(address: str) -> socket.socket:
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, because asyncio turns Nagle's delay off only then: 40 ms an answer else.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        message = (
            f"Cannot listen at {address}: {error.strerror}. Another program may have the port, "
            "or another coordinator runs. Choose another in coordinator.yaml, or see "
            "`wardround-coordinator doctor`."
        )
        raise ConfigurationError(message) from error
    return bound
