"""Front of the sites' listener: where a load balancer that ended a site's TLS hands it on.

It speaks HTTP without TLS, and only so far that a caller may ask for `Upgrade`. After that the
connection is one of the door's as any other: TLS 1.3 begins on it, with our own certificate.
Whoever reaches this address reaches the door, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from common.messages.tunnel import TUNNEL_PATH, TUNNEL_PROTOCOL

#: A caller has asked in so many seconds and bytes, or is let go.
_ASKING_SECONDS = 10.0
_LARGEST_HEAD = 16 * 1024
#: Callers that have not asked yet; of more, the newest is let go.
_ASKING = 256
_YES = (
    f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {TUNNEL_PROTOCOL}\r\n\r\n"
)
_NO = (
    f"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nUpgrade: {TUNNEL_PROTOCOL}\r\n"
    "Content-Length: 0\r\n\r\n"
)


class Front:
    """Lets those in who ask for the tunnel. It has what uvicorn asks of an asyncio.Server."""

    def __init__(self, bound: socket.socket, let_in: Callable[[socket.socket, str], None]) -> None:
        """Listen; `let_in` is the door's, for a connection and its caller's address."""
        self._bound = bound
        self._let_in = let_in
        self._asking: set[asyncio.Task[None]] = set()
        bound.setblocking(False)
        bound.listen(2048)
        self._accepting = asyncio.ensure_future(self._accept())

    def close(self) -> None:
        """Let nobody in any more; who is in stays."""
        self._accepting.cancel()
        for task in self._asking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return once it is closed."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(self._bound)
            except OSError:  # no more files may be opened: what is open must end first
                await asyncio.sleep(0.2)
                continue
            if len(self._asking) >= _ASKING:
                sock.close()
                continue
            task = asyncio.ensure_future(self._hear(sock, str(peer[0])))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _hear(self, sock: socket.socket, peer: str) -> None:
        """Answer one caller, and hand it on or let it go."""
        loop, handed = asyncio.get_running_loop(), False
        try:
            async with asyncio.timeout(_ASKING_SECONDS):
                head = await _head(loop, sock)
                wanted = head is not None and _asks_for_tunnel(head)
                await loop.sock_sendall(sock, (_YES if wanted else _NO).encode("ascii"))
            if head is not None and wanted:
                self._let_in(sock, _caller(head) or peer)
                handed = True
        except (OSError, TimeoutError):
            pass
        finally:
            if not handed:
                sock.close()


async def _head(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> list[str] | None:
    """Return a request's lines; None where it is none, or does not end where its head does."""
    content = b""
    while b"\r\n\r\n" not in content:
        more = await loop.sock_recv(sock, 4096)
        content += more
        if not more or len(content) > _LARGEST_HEAD:
            return None
    head, _, rest = content.partition(b"\r\n\r\n")
    return None if rest else head.decode("latin-1").split("\r\n")


def _asks_for_tunnel(head: list[str]) -> bool:
    method, _, rest = head[0].partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    asked = [value.lower() for value in _values(head, "upgrade")]
    return (method, path) == ("GET", TUNNEL_PATH) and TUNNEL_PROTOCOL in asked


def _caller(head: list[str]) -> str | None:
    """Return whom the balancer says that it forwards: the last, since it wrote that itself.

    It decides whose turn a stranger's connection is, and nothing else.
    """
    named = ",".join(_values(head, "x-forwarded-for")).rpartition(",")[2].strip()
    return named[:64] or None


def _values(head: list[str], name: str) -> list[str]:
    fields = (line.partition(":") for line in head[1:])
    return [value.strip() for own, _, value in fields if own.strip().lower() == name]
