"""pynetdicom's sockets set for images: no delay, large reads, slow peers apart.

Five faults of pynetdicom 3.0.4 are mended here: a refused connection leaves its socket open, a
PDU is read in pieces of 4 KiB, a listener's TLS handshake keeps all other callers waiting, every
connection costs a listener 0.2 s before anything was said on it (Supported), and an association's
own thread may swallow the first answer to a request (Checkpoint).
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

from client.pacs.connection.caller_limits import Callers

_PIECE_BYTES = 1 << 18
_HANDSHAKE_SECONDS = 10.0


class Checkpoint(threading.Event):
    """Where an association's thread waits while a request of ours is answered.

    pynetdicom asks the thread to wait, and goes on when it says that it does; but what it says
    may be of the last time. Then both take answers, and one in some hundred queries loses its
    only match without an error. Here `clear` returns once the thread does wait.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self.set()
        self._association = association
        self._waits = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; one that was set and cleared meanwhile is not."""
        del timeout
        while not self.is_set():
            self._waits.set()
            super().wait(1.0)
        self._waits.clear()
        return True

    def clear(self) -> None:
        """Let the thread wait, and return once it does or is no more."""
        super().clear()
        if threading.current_thread() is self._association:
            return
        while not self._waits.wait(0.02):
            if not self._association.is_alive():
                # pynetdicom would look at this for ever.
                self._association._is_paused = True  # noqa: SLF001
                return


class Transport(AssociationSocket):
    """A connection that we open."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Return so many bytes, or fewer when the connection ends."""
        found = bytearray()
        while len(found) < nr_bytes and self.socket is not None:
            piece = self.socket.recv(min(nr_bytes - len(found), _PIECE_BYTES))
            if not piece:
                break
            found += piece
        return found

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class Entity(AE):
    """An application entity whose connections are of that kind."""

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        assoc._reactor_checkpoint = Checkpoint(assoc)  # noqa: SLF001 - there is no other way in
        made = Transport(assoc, address=address)
        if made.socket is not None:
            made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.tls_args = tls_args
        return made


class Supported(list[PresentationContext]):
    """The presentation contexts of a listener, which each connection gets a copy of.

    A deep copy takes each of some 7,800 transfer syntaxes apart: 0.17 s of this machine for every
    connection, and a stranger who connects and hangs up sixty times keeps the PACS waiting for ten.
    Negotiation (PS3.8 annex B) only reads them, so a copy shares the contexts.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> list[PresentationContext]:
        """Return a list of the same contexts."""
        del memo
        return list(self)


class _Handler(RequestHandler):
    """Makes an association of a connection, and lets it read within bounds."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        assert isinstance(self.server, Listener)  # noqa: S101 - ours, so mypy knows
        self.server.callers.associate(self.request, association)
        return association


class Listener(ThreadedAssociationServer):
    """Accepts connections; each has its handshake in its own thread, and ten seconds for it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - pynetdicom's
        self.callers = Callers()
        super().__init__(*args, **{**kwargs, "request_handler": _Handler})
        self.contexts = Supported(self.contexts)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ANN401 - the same
        """Note who calls; another is cut if there are too many."""
        self.callers.admit(request, str(client_address[0]))
        return True

    def service_actions(self) -> None:
        """Cut who is overdue; this is called several times a second."""
        self.callers.look()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, and let its handshake wait."""
        if self.socket is None:
            raise OSError
        accepted, address = self.socket.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is not None:
            accepted = self.ssl_context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        return accepted, address

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Shake hands, and begin the association."""
        if isinstance(request, ssl.SSLSocket):
            try:
                request.settimeout(_HANDSHAKE_SECONDS)
                request.do_handshake()
                request.settimeout(None)
            except OSError:
                request.close()
                return
        super().process_request_thread(request, client_address)  # type: ignore[arg-type]
