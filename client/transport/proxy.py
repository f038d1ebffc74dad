"""HTTP proxy on the way to the coordinator (CONNECT); TLS stays end to end.

`proxy` in site.yaml decides; where it is not set, HTTPS_PROXY and NO_PROXY of the environment do,
as for other programs. This machine's own addresses are never asked for through a proxy.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import urllib.request
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx

from client.site.home import Home
from client.site.site_config import load_site_config
from common.messages.flower_http import KEPT_SECONDS
from common.platform.errors import ConfigurationError

#: What `proxy` says where no proxy is to be used, whatever the environment names.
DIRECT = "direct"


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy that speaks HTTP; Basic authentication stands in its URL."""

    url: str
    source: Literal["site.yaml", "HTTPS_PROXY"]

    @property
    def shown(self) -> str:
        """Its host and port, without the password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


def proxy_to(address: str, configured: str | None) -> Proxy | None:
    """Return the proxy through which HOST:PORT is reached, None when it is reached directly.

    ConfigurationError when the environment names one that is no HTTP proxy.
    """
    host = urlsplit(f"//{address}").hostname or ""
    if configured == DIRECT or is_loopback(host):
        return None
    if configured is not None:
        return Proxy(url=configured, source="site.yaml")
    found = urllib.request.getproxies_environment()
    url = (found.get("https") or found.get("all") or "").strip()
    if not url or _passed_by(host, address, found):
        return None
    return Proxy(url=_checked(url if "://" in url else f"http://{url}"), source="HTTPS_PROXY")


def _checked(url: str) -> str:
    """Return the URL of an HTTP proxy; ConfigurationError for any other, without its password."""
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            httpx.Proxy(url)
            return url
        said = f"a proxy of the kind {parts.scheme}" if parts.hostname else "which is no URL"
    except (ValueError, httpx.InvalidURL):
        said = "which is no URL"
    message = (
        f"HTTPS_PROXY names {url.rpartition('@')[2].rpartition('//')[2]}, {said}; expected "
        "http://HOST:PORT. Write an HTTP proxy, or direct, as proxy: in site.yaml."
    )
    raise ConfigurationError(message)


def _passed_by(host: str, address: str, environment: dict[str, str]) -> bool:
    """Return whether NO_PROXY names a host: by name, end, *.end, address or network."""
    if urllib.request.proxy_bypass_environment(address, environment):  # type: ignore[attr-defined]
        return True
    return any(_is_of(host.lower(), one) for one in environment.get("no", "").lower().split(","))


def _is_of(host: str, named: str) -> bool:
    named = named.strip()
    if named.startswith("*."):
        return host.endswith(named[1:])
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(named, strict=False)
    except ValueError:
        return False


def configured(home: Home) -> str | None:
    """Return what site.yaml says, None before there is one."""
    return load_site_config(home.site_yaml).proxy if home.site_yaml.exists() else None


def open_client(context: ssl.SSLContext, seconds: float, proxy: Proxy | None) -> httpx.Client:
    """Return a client for the coordinator, and for nobody to whom it might send us on."""
    return httpx.Client(
        verify=context,
        timeout=seconds,
        trust_env=False,
        limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
        proxy=None if proxy is None else httpx.Proxy(proxy.url),
    )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, as its name or number says, however it is written."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))  # 127.1
        except OSError:
            return False
    number = getattr(address, "ipv4_mapped", None) or address
    return bool(number.is_loopback or number.is_unspecified)
