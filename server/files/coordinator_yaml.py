"""coordinator.yaml: name and addresses of the coordinator."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, Field, Strict, StringConstraints, ValidationError

from common.config.errors import explain
from common.config.parts.section import Part, PositiveInt
from common.config.yaml import read_yaml
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError
from server.http.connection_limits import DoorLimits

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):[1-9][0-9]{0,4}")
_LARGEST_PORT = 65535


def _host_and_port(address: str) -> str:
    if not _HOST_PORT.fullmatch(address) or host_and_port(address)[1] > _LARGEST_PORT:
        message = f"expected HOST:PORT, with a port from 1 to {_LARGEST_PORT}"
        raise ValueError(message)
    return address


HostPort = Annotated[str, StringConstraints(max_length=260), AfterValidator(_host_and_port)]
DEFAULT_PORT = 8443
_Port = Annotated[int, Strict(), Field(ge=1, le=_LARGEST_PORT)]


class Settings(Part):
    """The coordinator's own settings."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$")
    #: What sites connect to.
    address: HostPort
    #: Where the service listens for them.
    listen: HostPort
    #: Where it listens for its own operator.
    operator: HostPort
    #: Where it listens, without TLS, for a load balancer that ends the TLS of `address`.
    front: HostPort | None = None
    #: Ports on 127.0.0.1 without TLS: /healthz and /metrics, and the gRPC health protocol.
    health_port: _Port | None = None
    health_grpc_port: _Port | None = None
    #: So long a run may take to save its round when the service is stopped.
    stop_seconds: PositiveInt = 20
    #: So many runs work at the same time, the others wait; None: all.
    runs_at_once: PositiveInt | None = None
    #: Open connections that have shown no key yet, in all and from one address; and how many new
    #: connections a second are taken up from addresses that have no turns of their own.
    strangers: Annotated[int, Strict(), Field(ge=8, le=10_000)] = 512
    strangers_per_address: Annotated[int, Strict(), Field(ge=4, le=10_000)] = 256
    handshakes_per_second: Annotated[int, Strict(), Field(ge=1, le=10_000)] = 50

    def door(self) -> DoorLimits:
        """Return what strangers may take."""
        return DoorLimits(
            strangers=self.strangers,
            strangers_per_address=self.strangers_per_address,
            handshakes_per_second=self.handshakes_per_second,
        )


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host loses its brackets."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def new_settings(name: str, address: str) -> Settings:
    """Return the settings of a coordinator that sites reach at `address`."""
    values: dict[str, object] = {"name": name, "address": address, "listen": "", "operator": ""}
    if ":" not in address.rpartition("]")[2]:
        values["address"] = f"{address}:{DEFAULT_PORT}"
    try:
        host, port = host_and_port(str(values["address"]))
    except ValueError:
        host, port = "", 0
    everywhere = "127.0.0.1" if is_loopback(host) else "[::]" if ":" in host else "0.0.0.0"  # noqa: S104 - sites come from elsewhere
    values["listen"] = f"{everywhere}:{port}"
    values["operator"] = f"127.0.0.1:{port + 1 if port < _LARGEST_PORT else port - 1}"
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        message = (
            f"{explain(error, Settings, 'init')}\nGive the name or number by which sites reach "
            f"this machine, e.g. --address coordinator.example.org:{DEFAULT_PORT}"
        )
        raise ConfigurationError(message) from error


def load_settings(path: Path) -> Settings:
    """Read coordinator.yaml; ConfigurationError names the key, its value and what fits."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"Cannot read {path}: {error}. `wardround-coordinator init` writes a new one."
        raise ConfigurationError(message) from error
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Settings, str(path))) from error


def write_settings(path: Path, settings: Settings) -> None:
    """Write coordinator.yaml with a comment a key."""
    text = f"""\
# The coordinator's name, as sites see it.
name: "{settings.name}"
# What sites connect to. After a change restart the service: it renews its certificate itself.
address: "{settings.address}"
# Where the service listens for sites, and for the commands of this machine's operator.
listen: "{settings.listen}"
operator: "{settings.operator}"
# Where it listens for a load balancer that ends the TLS of address; what goes inside is TLS again,
# with this coordinator's own certificate. Invitations say so to sites. null: sites come directly.
front: {"null" if settings.front is None else f'"{settings.front}"'}
# Ports on 127.0.0.1 without TLS: /healthz and /metrics, and the gRPC health protocol; null: off.
health_port: {settings.health_port or "null"}
health_grpc_port: {settings.health_grpc_port or "null"}
# So long a run may take to save its round when the service is stopped, in seconds.
stop_seconds: {settings.stop_seconds}
# So many runs work at the same time, the others wait their turn; null: all of them.
runs_at_once: {settings.runs_at_once or "null"}
# Open connections that have shown no key yet, in all and from one address, and new ones a second.
# Sites that have shown theirs do not count: many behind one address (NAT) need no more than this.
strangers: {settings.strangers}
strangers_per_address: {settings.strangers_per_address}
handshakes_per_second: {settings.handshakes_per_second}
"""
    replace_durably(path, text.encode())


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host's name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
