"""A systemd unit that lets the daemon do its work and nothing else."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from client.site_config import SiteConfig

#: Memory of the daemon beside its worker.
_DAEMON_GIB = 1.0
#: Homes that ProtectHome=yes would hide.
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_UNIT = """\
[Unit]
Description=Wardround site {name}
Wants=network-online.target
After=network-online.target

[Service]
User={user}
ExecStart={start}
# A wrong configuration (2) does not mend itself; everything else is tried again.
Restart=always
RestartSec=5
RestartPreventExitStatus=2
TimeoutStopSec=30
KillMode=mixed
# A worker that takes too much memory is ended alone; the daemon starts another.
OOMPolicy=continue
MemoryMax={memory}
TasksMax=1024

# Its own files are for its user alone; images and labels are only read.
UMask=0077
ProtectSystem=strict
ProtectHome={homes}
ReadWritePaths={home}
ReadOnlyPaths={read_only}
PrivateTmp=yes
{devices}
# No privileges, now or later, and no part of the system that it does not need.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a unit is written for."""

    program: Path  # wardround-site as it is installed
    home: Path
    user: str
    config: SiteConfig


def unit(service: Service) -> str:
    """Return the unit's text; `systemd-analyze verify` accepts it."""
    config, home = service.config, service.home
    paths = (service.program, home, config.data, config.labels_csv)
    start = shlex.join([str(service.program), "start", "--json", "--home", str(home)])
    return _UNIT.format(
        name=config.name, user=service.user, start=_escaped(start),
        memory="infinity" if config.memory_gib is None else f"{_mib(config.memory_gib)}M",
        homes="read-only" if any(map(in_a_persons_home, paths)) else "yes",
        home=_quoted(home), read_only=_read_only(config), devices=_devices(config),
    )  # fmt: skip


def in_a_persons_home(path: Path) -> bool:
    """Return whether a path lies where other users are kept out."""
    return any(path.is_relative_to(place) for place in _HOMES)


def how_to_install(service: Service, written: Path) -> list[str]:
    """Return what to type, as root, with the unit in a file."""
    home, program = shlex.quote(str(service.home)), shlex.quote(str(service.program))
    return [
        f"id {service.user} || useradd --system --shell /usr/sbin/nologin {service.user}",
        f"chown -R {service.user}: {home}",
        f"cp {shlex.quote(str(written))} /etc/systemd/system/wardround-site.service",
        f"runuser -u {service.user} -- {program} doctor --home {home}",
        "systemctl daemon-reload",
        "systemctl enable --now wardround-site",
    ]


def _devices(config: SiteConfig) -> str:
    if config.device == "cpu":
        return "PrivateDevices=yes\n"
    return "# The GPU and no other device.\nDevicePolicy=closed\nDeviceAllow=char-nvidia* rw\n"


def _read_only(config: SiteConfig) -> str:
    """Return where patients lie; the minus lets the daemon start while a share is away."""
    paths = [config.data]
    if not config.labels_csv.is_relative_to(config.data):
        paths.append(config.labels_csv)
    return " ".join(_quoted(path, "-") for path in paths)


def _mib(worker_gib: float) -> int:
    return int((worker_gib + _DAEMON_GIB) * 1024)


def _quoted(path: Path, mark: str = "") -> str:
    """Return a path as systemd reads it: % begins a specifier, blanks part paths."""
    text = mark + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(c in text for c in " \t\\'\"") else text


def _escaped(command: str) -> str:
    return command.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
