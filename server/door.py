"""The door of a listener: what a caller may take before it has shown a key.

A connection is a stranger's until one of its requests shows a key (`asgi.shown`): an accepted
site's signature, or the operator's token.

    waiting    accepted; its TLS is begun when its address has its turn, the newest first
    stranger   has one of a fixed number of places, and so many seconds for each step
    known      has shown a key: no stranger takes its place, and only its owner's others count

When the places are taken, the address that has most of them gives up its oldest, and one from
which a key was shown lately gives up last. So a hospital's new connection waits for strangers'
TLS in turns, never for their patience. Strangers behind a hospital's own address (NAT) share its
places and its turns; its connections that have shown a key are beyond their reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable

from server.door_places import DoorLimits, Place, Places, network_of

#: TLS must be agreed, and a stranger's request be whole, in so many seconds each.
HANDSHAKE_SECONDS = 10.0
#: TLS's goodbye; a peer that does not say it is let go.
_GOODBYE_SECONDS = 2.0
#: Accepted connections whose TLS is not begun.
_WAITING, _WAITING_AN_ADDRESS = 512, 128
_ACCEPTED_AT_ONCE = 64
_LOOK_SECONDS = 1.0
#: A pause where this process may open no more files.
_FULL_SECONDS = 0.2


#: Makes the protocol of a place's connection.
Factory = Callable[[Place], asyncio.Protocol]


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
        self._waiting: OrderedDict[str, deque[socket.socket]] = OrderedDict()
        self._turns = _Turns(limits.handshakes_per_second)
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
        for sockets in self._waiting.values():
            for sock in sockets:
                sock.close()
        self._waiting.clear()
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
            self._wait(sock, network_of(str(peer[0])))
        self._serve()

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
        own = self._waiting.setdefault(address, deque())
        own.append(sock)
        if len(own) > _WAITING_AN_ADDRESS:
            self._give_up(address)
        elif sum(map(len, self._waiting.values())) > _WAITING:
            self._give_up(max(self._waiting, key=lambda a: len(self._waiting[a])))

    def _give_up(self, address: str) -> None:
        """Close the one that waited longest: it may be gone."""
        self._places.count("too_many_waiting", address)
        self._waiting[address].popleft().close()
        if not self._waiting[address]:
            del self._waiting[address]

    def _serve(self) -> None:
        """Begin TLS with as many as have their turn now."""
        while self._waiting:
            delay = self._turns.take(self._loop.time())
            if delay > 0:
                if self._next is None:
                    self._next = self._loop.call_later(delay, self._served_later)
                return
            address, own = self._waiting.popitem(last=False)
            sock = own.pop()
            if own:
                self._waiting[address] = own  # behind the other addresses
            self._begin(sock, address)

    def _served_later(self) -> None:
        self._next = None
        self._serve()

    def _begin(self, sock: socket.socket, address: str) -> None:
        place = Place(self._places, address, sock)
        self._places.take(place)

        def over(_task: asyncio.Task[None]) -> None:
            if place.connection is None:
                place.leave()
                sock.close()

        place.task = asyncio.ensure_future(self._shake_hands(place))
        place.task.add_done_callback(over)

    async def _shake_hands(self, place: Place) -> None:
        """Agree on TLS; what fails here is a stranger's, and counted, not told one by one."""
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._factory(place), place.sock, ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )  # fmt: skip
        except OSError:  # ssl.SSLError and TimeoutError are
            self._places.count("no_tls", place.address)

    # --- time -------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._places.look(self._loop.time())


class _Turns:
    """A bucket of TLS agreements that fills with time; few at once, for others wait meanwhile."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._most = max(per_second / 25, 1.0)
        self._there = self._most
        self._at = 0.0

    def take(self, now: float) -> float:
        """Take one and return 0, or return in how many seconds there is one."""
        self._there = min(self._most, self._there + (now - self._at) * self._per_second)
        self._at = now
        if self._there < 1:
            return (1 - self._there) / self._per_second
        self._there -= 1
        return 0.0
