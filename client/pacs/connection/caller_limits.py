"""Callers of our storage SCP, and how much of this machine each may take.

An AE title is no secret, so whoever reaches the port can call. pynetdicom bounds the associations,
but neither the connections that never become one, nor the length of a PDU (32 bits, PS3.8 9.3.1),
nor how long it takes to come, nor what is kept of messages that have no end. Here a caller that is
over a bound is cut; when the connections are taken, the address with the most gives one up, first
one that is no association yet, then the one that was silent the longest.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pynetdicom.association import Association

from common.platform.logs import log

_PIECE_BYTES = 1 << 18
_LOOK_SECONDS = 0.5
_TOLD_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class CallerLimits:
    """What callers may take."""

    connections: int = 64
    opening_seconds: float = 10.0  # from the connection to an association
    pdu_seconds: float = 60.0  # from a PDU's first byte to its last
    pdu_bytes: int = 1 << 20  # eight times what we announce; a request with all contexts fits
    kept_bytes: int = 2 << 30  # of all messages that are not stored yet


LIMITS = CallerLimits()


@dataclass(eq=False)
class IncomingAssociation:
    """One connection to us."""

    sock: socket.socket
    address: str
    since: float
    heard: float
    association: Association | None = None
    reading_since: float | None = None  # a PDU that is not whole
    kept: int = 0  # bytes of messages that are not stored yet

    @property
    def is_open(self) -> bool:
        """Return whether the connection is still there."""
        thread = self.association
        over = thread is not None and thread.ident is not None and not thread.is_alive()
        return self.sock.fileno() >= 0 and not over

    @property
    def is_established(self) -> bool:
        """Return whether it has become an association."""
        return self.association is not None and bool(self.association.is_established)

    def close(self) -> None:
        """Give the connection back, and its thread.

        pynetdicom waits for a request as long as one may take, whether anybody is there or not;
        such threads count as associations, and enough of them would have the PACS turned away.
        """
        self.cut()
        self.sock.close()
        if self.association is not None and not self.is_established:
            # As if the wait were over: it returns None then.
            self.association.dul.to_user_queue.put(None)  # type: ignore[arg-type]  # not in its stub

    def cut(self) -> None:
        """End it; its own thread notices and cleans up."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


@dataclass
class Callers:
    """All connections to one listener."""

    limits: CallerLimits = field(default_factory=lambda: LIMITS)
    _open: list[IncomingAssociation] = field(default_factory=list)
    _cut: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _looked: float = 0.0
    _told: float = -_TOLD_SECONDS

    def admit(self, sock: socket.socket, address: str) -> None:
        """Take a connection in, and cut another if there are too many."""
        now = time.monotonic()
        with self._lock:
            self._forget()
            while len(self._open) >= self.limits.connections:
                one = self._greediest()
                self._end(one, "too_many")
                self._open.remove(one)
            self._open.append(IncomingAssociation(sock, address, since=now, heard=now))

    def associate(self, sock: socket.socket, association: Association) -> None:
        """Note the association of a connection, and read for it from now on."""
        caller = self._find(lambda one: one.sock is sock)
        if caller is None:  # it was cut meanwhile, and this notices
            caller = IncomingAssociation(sock, "", since=0.0, heard=0.0)
        caller.association = association
        transport = association.dul.socket
        assert transport is not None  # noqa: S101 - it was made with the association
        # There is no other way in: pynetdicom makes the transport, and reads without bounds.
        vars(transport)["recv"] = partial(self._read, caller)
        # Else one that was shut down, by us or the peer, stays open.
        vars(transport)["_shutdown_socket"] = caller.close

    def stored(self, association: Association, size: int) -> None:
        """Note that a message of a caller's was dealt with."""
        caller = self._find(lambda one: one.association is association)
        if caller is not None:
            caller.kept = max(caller.kept - size, 0)

    def look(self) -> None:
        """Cut whoever is overdue; call it often."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        with self._lock:
            self._forget()
            for one in self._open:
                reading = one.reading_since
                if not one.is_established and now - one.since > self.limits.opening_seconds:
                    self._end(one, "no_association")
                elif reading is not None and now - reading > self.limits.pdu_seconds:
                    self._end(one, "pdu_too_slow")
        self._tell(now)

    def _read(self, caller: IncomingAssociation, count: int) -> bytearray:
        """Return so many bytes, or fewer at the connection's end; ConnectionError beyond bounds."""
        found = bytearray()
        if count > self.limits.pdu_bytes:
            self._refuse(caller, "pdu_too_large")
        is_head = caller.reading_since is None  # the rest of a PDU is read after it
        if is_head:
            caller.reading_since = time.monotonic()
        while len(found) < count:
            piece = caller.sock.recv(min(count - len(found), _PIECE_BYTES))
            if not piece:
                break
            found += piece
            self._keep(caller, len(piece))
        if not is_head:
            caller.reading_since = None
        return found

    def _keep(self, caller: IncomingAssociation, size: int) -> None:
        caller.kept += size
        caller.heard = time.monotonic()
        if caller.kept <= self.limits.kept_bytes // self.limits.connections:
            return
        with self._lock:
            if sum(one.kept for one in self._open) > self.limits.kept_bytes:
                most = max(self._open, key=lambda one: one.kept)
                self._end(most, "message_too_large")
                most.kept = 0
                if most is caller:
                    raise ConnectionAbortedError

    def _refuse(self, caller: IncomingAssociation, reason: str) -> None:
        with self._lock:
            self._end(caller, reason)
        raise ConnectionAbortedError(reason)

    def _end(self, one: IncomingAssociation, reason: str) -> None:
        self._cut[reason] += 1
        one.cut()

    def _greediest(self) -> IncomingAssociation:
        count = Counter(one.address for one in self._open)
        return max(
            self._open, key=lambda one: (count[one.address], not one.is_established, -one.heard)
        )

    def _find(self, fits: Callable[[IncomingAssociation], bool]) -> IncomingAssociation | None:
        with self._lock:
            return next((one for one in self._open if fits(one)), None)

    def _forget(self) -> None:
        self._open = [one for one in self._open if one.is_open]
        for one in self._open:
            dimse = one.association.dimse if one.association is not None else None
            if dimse is not None and dimse.message is None and dimse.msg_queue.empty():
                one.kept = 0

    def _tell(self, now: float) -> None:
        if self._cut and now - self._told >= _TOLD_SECONDS:
            self._told = now
            log(__name__).warning("callers were cut", stranger=True, **dict(self._cut))
            self._cut.clear()
