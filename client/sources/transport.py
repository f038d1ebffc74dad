"""pynetdicom's sockets, made for images: no delay, large reads, and one slow peer stops no other.

Three faults of pynetdicom 3.0.4 are mended here: a refused connection leaves its socket open, a
PDU is read in pieces of 4 KiB, and a listener's TLS handshake keeps all other callers waiting.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket, ThreadedAssociationServer

_PIECE_BYTES = 1 << 18
_HANDSHAKE_SECONDS = 10.0


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
        made = Transport(assoc, address=address)
        if made.socket is not None:
            made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.tls_args = tls_args
        return made


class Listener(ThreadedAssociationServer):
    """Accepts connections; each has its handshake in its own thread, and ten seconds for it."""

    daemon_threads = True

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
