"""Connections on the way to the coordinator: through a proxy, and inside of another's TLS.

    machine --- proxy (CONNECT) --- load balancer (ends a TLS of its own) --- coordinator

Whichever of them stand there, TLS 1.3 with the coordinator's authority begins after them and ends
at the coordinator. httpx asks for a connection (`connect_tcp`) and begins that TLS on it.
"""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from client.transport.kerberos import NoTicket, ticket
from client.transport.proxy import Proxy, Way
from common.messages.flower_http import KEPT_SECONDS
from common.messages.tunnel import TUNNEL_PATH, TUNNEL_PROTOCOL

_LARGEST_HEAD = 64 * 1024
_SWITCHING, _PROXY_AUTHENTICATION = 101, 407
_Options = Iterable[httpcore.SOCKET_OPTION]


@dataclass(frozen=True)
class _Head:
    """The first lines of an HTTP answer."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]  # names in small letters

    def all(self, name: str) -> list[str]:
        """Return the values of a field."""
        return [value for own, value in self.fields if own == name]


def open_client(context: ssl.SSLContext, seconds: float, way: Way) -> httpx.Client:
    """Return a client for the coordinator, and for nobody to whom it might send us on."""
    transport = httpx.HTTPTransport(verify=context)
    transport._pool.close()  # noqa: SLF001 - httpx lets nobody say how its sockets are opened
    transport._pool = httpcore.ConnectionPool(  # noqa: SLF001
        ssl_context=context, keepalive_expiry=KEPT_SECONDS, network_backend=Connections(way)
    )
    return httpx.Client(transport=transport, timeout=seconds, trust_env=False)


class Connections(httpcore.NetworkBackend):
    """Opens connections to a coordinator on one way."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _Options | None = None,
    ) -> httpcore.NetworkStream:
        """Return a connection on which the coordinator's TLS can begin."""
        del local_address
        proxy, target = self._way.proxy, _authority(host, port)
        if proxy is None:
            stream = self._sockets.connect_tcp(host, port, timeout, None, socket_options)
        else:
            try:
                stream = self._through(proxy, target, _basic(proxy), timeout, socket_options)
            except _WantsTicket as wanted:
                login = f"Negotiate {_token_for(proxy, wanted)}"
                stream = self._through(proxy, target, login, timeout, socket_options)
        try:
            return _inside(stream, host, port, timeout) if self._way.tunnel else stream
        except BaseException:
            stream.close()
            raise

    def _through(
        self, proxy: Proxy, target: str, login: str, timeout: float | None, options: _Options | None
    ) -> httpcore.NetworkStream:
        """Return a connection on which a proxy passes everything on."""
        stream = self._to_proxy(proxy, timeout, options)
        try:
            _ask_proxy(stream, target, login, timeout)
        except BaseException:
            stream.close()
            raise
        return stream

    def _to_proxy(
        self, proxy: Proxy, timeout: float | None, options: _Options | None
    ) -> httpcore.NetworkStream:
        parts = urlsplit(proxy.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        stream = self._sockets.connect_tcp(host, port, timeout, None, options)
        if parts.scheme == "https":
            return stream.start_tls(httpcore.default_ssl_context(), host, timeout)
        return stream

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def outer_certificate(way: Way, host: str, port: int, timeout: float) -> bytes:
    """Return the certificate (DER) at which TLS to an address ends, whoever's it is."""
    stream = Connections(Way(proxy=way.proxy)).connect_tcp(host, port, timeout)
    outer = stream.start_tls(_anybodys(), host, timeout)  # which takes the socket, or closes it
    try:
        return outer.get_extra_info("ssl_object").getpeercert(True) or b""
    finally:
        outer.close()


def _inside(
    stream: httpcore.NetworkStream, host: str, port: int, timeout: float | None
) -> httpcore.NetworkStream:
    """Ask for the way on to the coordinator, in a TLS that ends before it."""
    outer = stream.start_tls(_anybodys(), host, timeout)
    request = (
        f"GET {TUNNEL_PATH} HTTP/1.1\r\nHost: {_authority(host, port)}\r\n"
        f"Connection: Upgrade\r\nUpgrade: {TUNNEL_PROTOCOL}\r\n\r\n"
    )
    outer.write(request.encode("ascii"), timeout)
    head = _read_head(outer, timeout)
    if head.status != _SWITCHING:
        message = f"no tunnel: {head.status} {head.reason} in answer to Upgrade"
        raise httpcore.ConnectError(message)
    return outer


def _anybodys() -> ssl.SSLContext:
    """Return TLS that takes every certificate: what travels in it is TLS that takes one alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class _WantsTicket(httpcore.ProxyError):
    """A proxy that was shown nothing takes Kerberos."""


def _ask_proxy(
    stream: httpcore.NetworkStream, target: str, login: str, timeout: float | None
) -> None:
    """Let the proxy connect to HOST:PORT; ProxyError says why it does not."""
    shown = [f"Proxy-Authorization: {login}"] if login else []
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *shown]
    stream.write("".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii"), timeout)
    head = _read_head(stream, timeout)
    if 200 <= head.status < 300:
        return
    message = f"{head.status} {head.reason}"
    if head.status == _PROXY_AUTHENTICATION:
        offered = [value.split()[0] for value in head.all("proxy-authenticate") if value.strip()]
        message = f"{message} ({', '.join(offered) or 'no scheme named'})"
        if not login and "negotiate" in map(str.lower, offered):
            raise _WantsTicket(message)
    raise httpcore.ProxyError(message)


def _basic(proxy: Proxy) -> str:
    """Return what shows a name and a password; empty where the proxy's URL has none."""
    parts = urlsplit(proxy.url)
    if parts.username is None:
        return ""
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {_text(login.encode())}"


def _token_for(proxy: Proxy, wanted: _WantsTicket) -> str:
    try:
        return _text(ticket(urlsplit(proxy.url).hostname or ""))
    except NoTicket as error:
        message = f"{wanted}, and there is no Kerberos ticket: {error}"
        raise httpcore.ProxyError(message) from error


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _read_head(stream: httpcore.NetworkStream, timeout: float | None) -> _Head:
    """Read an answer's head. What follows is the other side's TLS, which waits for ours."""
    content = b""
    while b"\r\n\r\n" not in content:
        more = stream.read(4096, timeout)
        content += more
        if not more or len(content) > _LARGEST_HEAD:
            message = "no HTTP in answer to CONNECT or Upgrade"
            raise httpcore.RemoteProtocolError(message)
    first, *lines = content.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    _, _, rest = first.partition(" ")
    status, _, reason = rest.partition(" ")
    if not first.startswith("HTTP/1.") or not status.isdecimal():
        message = f"no HTTP in answer to CONNECT or Upgrade: {first[:80]!r}"
        raise httpcore.RemoteProtocolError(message)
    named = (line.partition(":") for line in lines)
    fields = tuple((name.strip().lower(), value.strip()) for name, _, value in named)
    return _Head(int(status), reason, fields)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
