"""systemd unit of the coordinator's service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.platform.systemd import Daemon, how_to_install_unit, unit_of
from server.files.coordinator_yaml import Settings, host_and_port

#: The service takes as many by itself where the system allows it (server/service/serve.py).
OPEN_FILES = 16384
#: Above what a run may take to save its round.
_GOODBYE_SECONDS = 30
_FIRST_FREE_PORT = 1024


@dataclass(frozen=True, kw_only=True)
class CoordinatorUnit:
    """What a unit is written for."""

    program: Path  # wardround-coordinator as it is installed
    folder: Path
    user: str
    settings: Settings


def unit(service: CoordinatorUnit) -> str:
    """Return the unit's text."""
    settings = service.settings
    return unit_of(
        Daemon(
            description=f"Wardround coordinator {settings.name}",
            user=service.user,
            command=(str(service.program), "start", "--json", "--folder", str(service.folder)),
            own="ExecReload=/bin/kill -HUP $MAINPID\n"
            f"TimeoutStopSec={settings.stop_seconds + _GOODBYE_SECONDS}\n"
            "# The service ends its runs itself, in time to save their rounds.\n"
            "KillMode=mixed\nOOMPolicy=continue\n"
            "# Connections are files: as many as its door has places, and more.\n"
            f"LimitNOFILE={OPEN_FILES}\nTasksMax=1024",
            devices="PrivateDevices=yes\n",
            writes=service.folder,
        )
    )


def how_to_install(service: CoordinatorUnit, written: Path) -> list[str]:
    """Return what to type, as root, with the unit in a file."""
    doctor = [str(service.program), "doctor", "--folder", str(service.folder)]
    return how_to_install_unit(
        "wardround-coordinator",
        user=service.user,
        folder=service.folder,
        written=written,
        doctor=doctor,
    )


def low_port(settings: Settings) -> int | None:
    """Return a port that the unit's user, who has no privileges, may not listen on."""
    for address in (settings.listen, settings.operator):
        _, port = host_and_port(address)
        if port < _FIRST_FREE_PORT:
            return port
    return None
