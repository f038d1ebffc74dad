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
import ipaddress
import socket
import ssl
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from common.logs import log

#: TLS must be agreed, and a stranger's request be whole, in so many seconds each.
HANDSHAKE_SECONDS = 10.0
#: TLS's goodbye; a peer that does not say it is let go.
_GOODBYE_SECONDS = 2.0
#: Accepted connections whose TLS is not begun.
_WAITING, _WAITING_AN_ADDRESS = 512, 128
#: Connections that one key may hold open: a site's daemon needs two.
_KNOWN_EACH = 64
#: Addresses from which a key was shown; the one that was longest silent is forgotten.
_TRUSTED_ADDRESSES = 4096
_ACCEPTED_AT_ONCE = 64
_LOOK_SECONDS = 1.0
_TOLD_SECONDS = 60.0
#: A pause where this process may open no more files.
_FULL_SECONDS = 0.2
#: IPv6 hands out networks of this size, not addresses.
_IPV6_NETWORK = 64


@dataclass(frozen=True, kw_only=True)
class DoorLimits:
    """What strangers may take."""

    strangers: int = 512  # connections in all
    strangers_per_address: int = 256
    handshakes_per_second: int = 50  # TLS agreements begun, known callers' too


class Standing(Protocol):
    """The connection behind a place, from when its TLS is agreed."""

    def overdue(self, now: float, *, known: bool) -> str | None:
        """Return what it does not do in its time, None when nothing is wrong."""

    def drop(self) -> None:
        """End it now."""


@dataclass(eq=False)
class Place:
    """One connection, from its TLS on."""

    door: Door
    address: str
    sock: socket.socket
    task: asyncio.Task[None] | None = None
    connection: Standing | None = None
    known: str | None = None  # whose key it showed

    def show(self, owner: str) -> None:
        """Note whose key was shown."""
        if self.known is None:
            self.door.know(self, owner)

    def leave(self) -> None:
        """Give the place back."""
        self.door.forget(self)

    def turn_away(self, reason: str) -> None:
        """End the connection; it is counted under a reason."""
        self.door.count(reason, self.address)
        self.leave()
        if self.connection is not None:
            self.connection.drop()
        elif self.task is not None:
            self.task.cancel()


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
        self._strangers: dict[str, dict[Place, None]] = {}  # by address; oldest first
        self._known: dict[str, dict[Place, None]] = {}  # by owner; oldest first
        self._trusted: OrderedDict[str, None] = OrderedDict()  # addresses
        self._waiting: OrderedDict[str, deque[socket.socket]] = OrderedDict()
        self._turns = _Turns(limits.handshakes_per_second)
        self._next: asyncio.TimerHandle | None = None
        self._told = _Told()
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
        for place in [p for places in self._strangers.values() for p in places]:
            if place.connection is None and place.task is not None:
                place.task.cancel()

    async def wait_closed(self) -> None:
        """Return once it is closed; connections are the listener's own to wait for."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._looking

    # --- places -----------------------------------------------------------------------------

    def know(self, place: Place, owner: str) -> None:
        """Move a place from the strangers to its owner's."""
        self.forget(place)
        place.known = owner
        self._trusted[place.address] = None
        self._trusted.move_to_end(place.address)
        if len(self._trusted) > _TRUSTED_ADDRESSES:
            self._trusted.popitem(last=False)
        own = self._known.setdefault(owner, {})
        if len(own) >= _KNOWN_EACH:
            next(iter(own)).turn_away("too_many_of_one_key")
            own = self._known.setdefault(owner, {})
        own[place] = None

    def forget(self, place: Place) -> None:
        """Give a place back; twice does no harm."""
        group, name = self._strangers, place.address
        if place.known is not None:
            group, name = self._known, place.known
        group.get(name, {}).pop(place, None)
        if name in group and not group[name]:
            del group[name]

    def count(self, reason: str, address: str) -> None:
        """Note that somebody was turned away."""
        self._told.add(reason, address)

    def _make_room(self, address: str) -> None:
        """End a stranger's connection if there are too many with the one that comes."""
        if len(self._strangers.get(address, {})) >= self._limits.strangers_per_address:
            next(iter(self._strangers[address])).turn_away("too_many_of_one_address")
        while sum(map(len, self._strangers.values())) >= self._limits.strangers:
            self._greediest().turn_away("too_many")

    def _greediest(self) -> Place:
        def greed(address: str) -> tuple[bool, int]:
            return address not in self._trusted, len(self._strangers[address])

        return next(iter(self._strangers[max(self._strangers, key=greed)]))

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
        self.count(error.strerror or "cannot_accept", "here")
        if self._strangers:
            self._greediest().turn_away("too_many")
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
        self.count("too_many_waiting", address)
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
        self._make_room(address)
        place = Place(self, address, sock)
        self._strangers.setdefault(address, {})[place] = None

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
            self.count("no_tls", place.address)

    # --- time -------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._loop.time()
            for group in (self._strangers, self._known):
                for place in [p for places in group.values() for p in places]:
                    standing = place.connection
                    fault = standing.overdue(now, known=place.known is not None) if standing else ""
                    if fault:
                        place.turn_away(fault)
            self._told.tell()


class _Turns:
    """A bucket of TLS agreements that fills with time; a fifth of a second's worth at most."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._most = max(per_second / 5, 1.0)
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


@dataclass
class _Told:
    """Counts who was turned away, and says so once a minute in one line."""

    reasons: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)
    at: float = -_TOLD_SECONDS

    def add(self, reason: str, address: str) -> None:
        self.reasons[reason] += 1
        if address in self.addresses or len(self.addresses) < _TRUSTED_ADDRESSES:
            self.addresses[address] += 1

    def tell(self) -> None:
        now = time.monotonic()
        if not self.reasons or now - self.at < _TOLD_SECONDS:
            return
        self.at = now
        address, count = self.addresses.most_common(1)[0]
        log(__name__).warning(
            "turned away", stranger=True, **dict(self.reasons), addresses=len(self.addresses),
            most_from=address, of_these=count,
        )  # fmt: skip
        self.reasons.clear()
        self.addresses.clear()


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv6 network of the size that one customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))
