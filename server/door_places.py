"""The places at a door: strangers' and known callers', who gives one up, who was turned away."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from common.logs import log

#: Connections that one key may hold open: a site's daemon needs two.
_KNOWN_EACH = 64
#: Addresses from which a key was shown; the one that was longest silent is forgotten.
_TRUSTED_ADDRESSES = 4096
_TOLD_SECONDS = 60.0
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

    places: Places
    address: str
    sock: socket.socket
    task: asyncio.Task[None] | None = None
    connection: Standing | None = None
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
        self._strangers: dict[str, dict[Place, None]] = {}  # by address; oldest first
        self._known: dict[str, dict[Place, None]] = {}  # by owner; oldest first
        self._trusted: OrderedDict[str, None] = OrderedDict()  # addresses
        self._told = _Told()

    def take(self, place: Place) -> None:
        """Give a stranger a place, and take another's if there are too many."""
        self._make_room(place.address)
        self._strangers.setdefault(place.address, {})[place] = None

    def strangers(self) -> list[Place]:
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
