"""Places at a door: strangers' and known callers'."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Protocol

from common.platform.logs import log
from common.platform.token_bucket import TokenBucket

#: Connections that one key may hold open: a site's daemon needs two.
_KNOWN_EACH = 64
#: Addresses from which a key was shown; the one that was longest silent is forgotten.
_TRUSTED_ADDRESSES = 4096
#: Such an address begins so many TLS agreements without waiting for other addresses' turns.
_OWN_PER_SECOND, _OWN_AT_ONCE = 10.0, 20.0
_TOLD_SECONDS = 60.0
#: Accepted connections whose TLS is not begun.
_WAITING, _WAITING_AN_ADDRESS = 512, 128
#: IPv6 hands out networks of this size, not addresses.
_IPV6_NETWORK = 64


@dataclass(frozen=True, kw_only=True)
class DoorLimits:
    """What strangers may take."""

    strangers: int = 512  # connections in all
    strangers_per_address: int = 256
    handshakes_per_second: int = 50  # TLS agreements begun that have no turn of their own


class WaitingConnections:
    """Accepted connections whose TLS is not begun, by address."""

    def __init__(self) -> None:
        self._sockets: OrderedDict[str, deque[socket.socket]] = OrderedDict()
        self._coin = random.Random()

    def __bool__(self) -> bool:
        """Return whether anybody waits."""
        return bool(self._sockets)

    def add(self, sock: socket.socket, address: str) -> str | None:
        """Let one wait; returns the address that gave up its oldest, which may be gone, for it."""
        own = self._sockets.setdefault(address, deque())
        own.append(sock)
        if len(own) <= _WAITING_AN_ADDRESS:
            if sum(map(len, self._sockets.values())) <= _WAITING:
                return None
            address = max(self._sockets, key=lambda a: len(self._sockets[a]))
        self._sockets[address].popleft().close()
        self._forget_if_empty(address)
        return address

    def next(self) -> tuple[socket.socket, str]:
        """Return whose turn it is: addresses go round, a coin decides within one.

        In a flood the oldest has mostly gone; where somebody comes again and again, whoever is
        not the newest would be overtaken for good.
        """
        address, own = next(iter(self._sockets.items()))
        sock = own.pop() if self._coin.getrandbits(1) else own.popleft()
        self._sockets.move_to_end(address)
        self._forget_if_empty(address)
        return sock, address

    def close(self) -> None:
        """Send everybody away."""
        for sockets in self._sockets.values():
            for sock in sockets:
                sock.close()
        self._sockets.clear()

    def _forget_if_empty(self, address: str) -> None:
        if not self._sockets[address]:
            del self._sockets[address]


class AgreedConnection(Protocol):
    """The connection behind a place, from when its TLS is agreed."""

    def overdue(self, now: float, *, known: bool) -> str | None:
        """Return what it does not do in its time, None when nothing is wrong."""

    def drop(self) -> None:
        """End it now."""


@dataclass(eq=False)
class DoorPlace:
    """One connection, from its TLS on."""

    places: Places
    address: str
    sock: socket.socket
    task: asyncio.Task[None] | None = None
    connection: AgreedConnection | None = None
    known: str | None = None  # whose key it showed

    def show(self, owner: str) -> None:
        """Note whose key was shown."""
        if self.known is None:
            self.places.know(self, owner)

    def leave(self) -> None:
        """Give the place back."""
        self.places.forget(self)

    def turn_away(self, reason: str) -> None:
        """End the connection; it is counted under a reason."""
        self.places.count(reason, self.address)
        self.leave()
        if self.connection is not None:
            self.connection.drop()
        elif self.task is not None:
            self.task.cancel()


class Places:
    """All connections of a door whose TLS has begun."""

    def __init__(self, limits: DoorLimits) -> None:
        self._limits = limits
        self._strangers: dict[str, dict[DoorPlace, None]] = {}  # by address; oldest first
        self._known: dict[str, dict[DoorPlace, None]] = {}  # by owner; oldest first
        self._trusted: OrderedDict[str, TokenBucket] = OrderedDict()  # by address
        self._told = _Told()

    def take(self, place: DoorPlace) -> None:
        """Give a stranger a place, and take another's if there are too many."""
        self._make_room(place.address)
        self._strangers.setdefault(place.address, {})[place] = None

    def has_own_turn(self, address: str, now: float) -> bool:
        """Take the turn that an address has because a key was shown from it lately."""
        own = self._trusted.get(address)
        return own is not None and own.take(now) == 0

    def strangers(self) -> list[DoorPlace]:
        """Return the strangers."""
        return [place for places in self._strangers.values() for place in places]

    def give_one_up(self) -> None:
        """End a stranger's connection, if there is one."""
        if self._strangers:
            self._greediest().turn_away("too_many")

    def look(self, now: float) -> None:
        """End what is overdue, and tell of those who were turned away."""
        known = [place for places in self._known.values() for place in places]
        for place in (*self.strangers(), *known):
            standing = place.connection
            fault = standing and standing.overdue(now, known=place.known is not None)
            if fault:
                place.turn_away(fault)
        self._told.tell()

    def know(self, place: DoorPlace, owner: str) -> None:
        """Move a place from the strangers to its owner's."""
        self.forget(place)
        place.known = owner
        self._trusted.setdefault(place.address, TokenBucket(_OWN_PER_SECOND, _OWN_AT_ONCE))
        self._trusted.move_to_end(place.address)
        if len(self._trusted) > _TRUSTED_ADDRESSES:
            self._trusted.popitem(last=False)
        own = self._known.setdefault(owner, {})
        if len(own) >= _KNOWN_EACH:
            next(iter(own)).turn_away("too_many_of_one_key")
            own = self._known.setdefault(owner, {})
        own[place] = None

    def forget(self, place: DoorPlace) -> None:
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

    def _greediest(self) -> DoorPlace:
        def greed(address: str) -> tuple[bool, int]:
            return address not in self._trusted, len(self._strangers[address])

        return next(iter(self._strangers[max(self._strangers, key=greed)]))


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
            "turned away",
            stranger=True,
            **dict(self.reasons),
            addresses=len(self.addresses),
            most_from=address,
            of_these=count,
        )
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
