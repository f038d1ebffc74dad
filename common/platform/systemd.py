"""systemd units of both sides."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from common.platform.errors import ConfigurationError

#: Homes that ProtectHome=yes would hide.
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_UNIT = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
User={user}
ExecStart={start}
# A wrong configuration (2) does not mend itself; everything else is tried again.
Restart=always
RestartSec=5
RestartPreventExitStatus=2
{own}

# Its own files are for its user alone, and nothing else is written.
UMask=0077
ProtectSystem=strict
ProtectHome={homes}
ReadWritePaths={writes}
{reads}PrivateTmp=yes
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
class Daemon:
    """What a unit is written for."""

    description: str
    user: str
    command: tuple[str, ...]  # program and arguments
    own: str  # lines of its own: signals, memory, files
    devices: str  # lines on devices
    writes: Path  # the only folder that it writes
    reads: tuple[Path, ...] = ()  # other folders that must be seen; they may be away


def unit_of(daemon: Daemon) -> str:
    """Return the unit's text; `systemd-analyze verify` accepts it."""
    paths = (Path(daemon.command[0]), daemon.writes, *daemon.reads)
    reads = " ".join(quoted(path, "-") for path in daemon.reads)
    return _UNIT.format(
        description=daemon.description,
        user=daemon.user,
        own=daemon.own,
        devices=daemon.devices,
        start=_escaped(shlex.join(daemon.command)),
        writes=quoted(daemon.writes),
        homes="read-only" if any(map(in_a_persons_home, paths)) else "yes",
        reads=f"ReadOnlyPaths={reads}\n" if reads else "",
    )


def installed(program: str) -> Path:
    """Return where one of our commands is installed; ConfigurationError when it is not."""
    beside = Path(sys.executable).with_name(program)
    if beside.exists():
        return beside
    found = shutil.which(program)
    if found is None:
        message = (
            f"There is no {beside} that a unit could start. Install the wheel of Wardround into "
            f"this environment, or type the command by its whole path."
        )
        raise ConfigurationError(message)
    return Path(found)


def in_a_persons_home(path: Path) -> bool:
    """Return whether a path lies where other users are kept out."""
    return any(path.is_relative_to(place) for place in _HOMES)


def how_to_install_unit(
    name: str, *, user: str, folder: Path, written: Path, doctor: list[str]
) -> list[str]:
    """Return what to type, as root, with the unit in a file."""
    return [
        f"id {user} || useradd --system --shell /usr/sbin/nologin {user}",
        f"chown -R {user}: {shlex.quote(str(folder))}",
        f"cp {shlex.quote(str(written))} /etc/systemd/system/{name}.service",
        f"runuser -u {user} -- {shlex.join(doctor)}",
        "systemctl daemon-reload",
        f"systemctl enable --now {name}",
    ]


def quoted(path: Path, mark: str = "") -> str:
    """Return a path as systemd reads it: % begins a specifier, blanks part paths."""
    text = mark + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if any(c in text for c in " \t\\'\"") else text


def _escaped(command: str) -> str:
    return command.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
