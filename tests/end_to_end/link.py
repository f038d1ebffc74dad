"""A line between a site and its coordinator that can be cut, slowed down, healed, listened to."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

_PIECE = 16 * 1024
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Tap:
    """With the coordinator's own keys, what passes can be read; nobody else has them."""

    as_coordinator: ssl.SSLContext  # towards the site
    as_site: ssl.SSLContext  # towards the coordinator
    name: str  # in the coordinator's certificate


@dataclass
class Link:
    """Listens at `port` and passes everything on to `target`, until it is told otherwise."""

    target: tuple[str, int]
    tap: Tap | None = None
    host: str = "127.0.0.1"
    port: int = 0
    up: int = 0  # bytes from the site
    down: int = 0
    said: bytearray = field(default_factory=bytearray)  # what the site said, with a tap
    up_rate: float = 0.0  # bytes a second; 0: as fast as it goes
    down_rate: float = 0.0
    cut_up_at: int = 0  # the line breaks once so many bytes went up; 0: never
    cut_down_at: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._whole = threading.Event()
        self._whole.set()
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = socket.create_server((self.host, self.port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """What a site is told."""
        return f"{self.host}:{self.port}"

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return not self._whole.is_set()

    def cut(self) -> None:
        """Break every connection, and whatever is tried from now on."""
        with self._lock:
            self._whole.clear()
            left, self._open = self._open, set()
        _close(*left)

    def heal(self) -> None:
        """Let everything pass again, as fast as it goes."""
        self.up_rate = self.down_rate = 0.0
        self.cut_up_at = self.cut_down_at = 0
        self._whole.set()

    def close(self) -> None:
        """End for good."""
        self._over.set()
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                site, _ = self._server.accept()
            except OSError:
                return
            if self.is_cut:
                _close(site)
                continue
            threading.Thread(target=self._connect, args=(site,), daemon=True).start()

    def _connect(self, site: socket.socket) -> None:
        site.settimeout(30)
        other: socket.socket | None = None
        try:
            if self.tap is not None:
                site.getpeername()  # one that has hung up already must not be wrapped
                site = self.tap.as_coordinator.wrap_socket(site, server_side=True)
            other = socket.create_connection(self.target, timeout=30)
            if self.tap is not None:
                other = self.tap.as_site.wrap_socket(other, server_hostname=self.tap.name)
        except OSError:
            _close(site, other)
            return
        with self._lock:
            if self.is_cut:
                _close(site, other)
                return
            self._open |= {site, other}
        # One thread reads both ends: a TLS connection must not be used by two at once.
        self._pass(site, other)
        with self._lock:
            self._open -= {site, other}

    def _pass(self, site: socket.socket, other: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
                selector.register(site, selectors.EVENT_READ, other)
                selector.register(other, selectors.EVENT_READ, site)
                while not self._over.is_set():
                    for key, _ in selector.select(_LOOK_SECONDS):
                        source, sink = key.fileobj, key.data
                        assert isinstance(source, socket.socket)
                        if not self._pass_one(source, sink, from_site=source is site):
                            return
        finally:
            _close(site, other)

    def _pass_one(self, source: socket.socket, sink: socket.socket, *, from_site: bool) -> bool:
        """Pass on what is there; False at the end of the connection."""
        while True:
            source.settimeout(0)
            try:
                piece = source.recv(_PIECE)
            except (BlockingIOError, ssl.SSLWantReadError):  # half a record, or a ticket
                return True
            if not piece:
                return False
            self._count(piece, from_site=from_site)
            sink.settimeout(30)
            sink.sendall(piece)
            rate = self.up_rate if from_site else self.down_rate
            if rate:
                time.sleep(len(piece) / rate)
            if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                return True

    def _count(self, piece: bytes, *, from_site: bool) -> None:
        if from_site:
            self.up += len(piece)
            if self.tap is not None:
                self.said += piece
        else:
            self.down += len(piece)
        if (0 < self.cut_up_at <= self.up) or (0 < self.cut_down_at <= self.down):
            self.cut_up_at = self.cut_down_at = 0
            self.cut()
            raise OSError


def _close(*ends: socket.socket | None) -> None:
    for one in ends:
        if one is not None:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                one.close()
