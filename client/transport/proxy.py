"""Way to the coordinator: an HTTP proxy (CONNECT), a tunnel inside of another's TLS, or neither.

`proxy` in site.yaml decides; where it is not set, HTTPS_PROXY and NO_PROXY of the environment do,
as for other programs. This machine's own addresses are never asked for through a proxy. TLS with
the coordinator stays end to end on every way (client/transport/connecting.py).
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx

from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config
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


@dataclass(frozen=True, kw_only=True)
class Way:
    """What stands between this machine and the coordinator."""

    proxy: Proxy | None = None
    tunnel: bool = False  # TLS ends before the coordinator, whose own goes inside of it

    @property
    def shown(self) -> str | None:
        """The proxy's host and port, without the password; None where there is none."""
        return None if self.proxy is None else self.proxy.shown


def way_to(address: str, config: SiteConfig | None) -> Way:
    """Return the way to HOST:PORT by site.yaml, if there is one, and the environment."""
    proxy = proxy_to(address, None if config is None else config.proxy)
    tunnel = config is not None and config.tunnel
    if tunnel and proxy is not None and proxy.url.startswith("https:"):
        message = (
            f"The proxy {proxy.shown} is reached by https, and tunnel: true wants TLS inside of "
            "TLS inside of that. Write its http address as proxy: in site.yaml."
        )
        raise ConfigurationError(message)
    return Way(proxy=proxy, tunnel=tunnel)


def site_way(home: Home, address: str) -> Way:
    """Return the way to HOST:PORT by a site's files, also before there is a site.yaml."""
    there = home.site_yaml.exists()
    return way_to(address, load_site_config(home.site_yaml) if there else None)


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
