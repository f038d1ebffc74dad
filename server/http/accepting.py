"""Door of a listener: what a caller may take before it has shown a key.

A connection is a stranger's until one of its requests shows a key (`asgi.shown`): an accepted
site's signature, or the operator's token.

    waiting    accepted; its TLS is begun when its address has its turn
    stranger   has one of a fixed number of places, and so many seconds for each step
    known      has shown a key: no stranger takes its place, and only its owner's others count

An address from which a key was shown lately has some turns of its own, at once; the others' go
round. When the places are taken, the address that has most of them gives up its oldest, and one
from which a key was shown lately gives up last. So a hospital's new connection waits for no other
address. Strangers behind its own (NAT) share its places and its turns; its connections that have
shown a key are beyond their reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from common.platform.token_bucket import TokenBucket
from server.http.connection_limits import (
    DoorLimits,
    DoorPlace,
    Places,
    WaitingConnections,
    network_of,
)

#: TLS must be agreed, and a stranger's request be whole, in so many seconds each.
HANDSHAKE_SECONDS = 10.0
#: TLS's goodbye; a peer that does not say it is let go.
_GOODBYE_SECONDS = 2.0
_ACCEPTED_AT_ONCE = 64
_LOOK_SECONDS = 1.0
#: A pause where this process may open no more files.
_FULL_SECONDS = 0.2


#: Makes the protocol of a place's connection.
Factory = Callable[[DoorPlace], asyncio.Protocol]


class Door:
    """Accepts what comes to one socket. It has what uvicorn asks of an asyncio.Server."""

    def __init__(
        self, bound: socket.socket, context: ssl.SSLContext, factory: Factory, limits: DoorLimits
    ) -> None:
        self._bound = bound
        self._context = context
        self._factory = factory
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._places = Places(limits)
        self._waiting = WaitingConnections()
        self._turns = TokenBucket(limits.handshakes_per_second, limits.handshakes_per_second / 25)
        self._next: asyncio.TimerHandle | None = None
        bound.setblocking(False)
        bound.listen(2048)
        self._loop.add_reader(bound.fileno(), self._accept)
        self._looking = asyncio.ensure_future(self._look())

    def close(self) -> None:
        """Let nobody in any more; who is in stays."""
        if self._looking.cancelled() or self._bound.fileno() < 0:
            return
        self._loop.remove_reader(self._bound.fileno())
        self._looking.cancel()
        if self._next is not None:
            self._next.cancel()
        self._waiting.close()
        for place in self._places.strangers():
            if place.connection is None and place.task is not None:
                place.task.cancel()

    async def wait_closed(self) -> None:
        """Return once it is closed; connections are the listener's own to wait for."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._looking

    # --- coming in --------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                self._full(error)
                break
            self._take(sock, str(peer[0]))
        self._serve()

    def let_in(self, sock: socket.socket, caller: str) -> None:
        """Take up a connection that came another way (server/http/tunnel.py)."""
        self._take(sock, caller)
        self._serve()

    def _take(self, sock: socket.socket, caller: str) -> None:
        address = network_of(caller)
        if self._places.has_own_turn(address, self._loop.time()):
            self._begin(sock, address)
        else:
            self._wait(sock, address)

    def _full(self, error: OSError) -> None:
        """Rest where no file can be opened: what is open must end first."""
        self._places.count(error.strerror or "cannot_accept", "here")
        self._places.give_one_up()
        self._loop.remove_reader(self._bound.fileno())
        self._loop.call_later(_FULL_SECONDS, self._again)

    def _again(self) -> None:
        if not self._looking.done() and self._bound.fileno() >= 0:
            self._loop.add_reader(self._bound.fileno(), self._accept)

    def _wait(self, sock: socket.socket, address: str) -> None:
        gave_up = self._waiting.add(sock, address)
        if gave_up is not None:
            self._places.count("too_many_waiting", gave_up)

    def _serve(self) -> None:
        """Begin TLS with as many as have their turn now."""
        while self._waiting:
            delay = self._turns.take(self._loop.time())
            if delay > 0:
                if self._next is None:
                    self._next = self._loop.call_later(delay, self._served_later)
                return
            self._begin(*self._waiting.next())

    def _served_later(self) -> None:
        self._next = None
        self._serve()

    def _begin(self, sock: socket.socket, address: str) -> None:
        place = DoorPlace(self._places, address, sock)
        self._places.take(place)

        def over(_task: asyncio.Task[None]) -> None:
            if place.connection is None:
                place.leave()
                sock.close()

        place.task = asyncio.ensure_future(self._shake_hands(place))
        place.task.add_done_callback(over)

    async def _shake_hands(self, place: DoorPlace) -> None:
        """Agree on TLS; what fails here is a stranger's, and counted, not told one by one."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._factory(place),
                place.sock,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        except OSError:  # ssl.SSLError and TimeoutError are
            self._places.count("no_tls", place.address)

    # --- time -------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._places.look(self._loop.time())
