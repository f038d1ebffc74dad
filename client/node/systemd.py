"""systemd unit of a site's daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.site.site_config import SiteConfig
from common.platform.systemd import Daemon, how_to_install_unit, unit_of

#: Memory of the daemon beside its worker.
_DAEMON_GIB = 1.0


@dataclass(frozen=True, kw_only=True)
class SiteUnit:
    """What a unit is written for."""

    program: Path  # wardround-site as it is installed
    home: Path
    user: str
    config: SiteConfig


def unit(service: SiteUnit) -> str:
    """Return the unit's text; images and labels are only read."""
    config, home = service.config, service.home
    memory = "infinity" if config.memory_gib is None else f"{_mib(config.memory_gib)}M"
    return unit_of(
        Daemon(
            description=f"Wardround site {config.name}",
            user=service.user,
            command=(str(service.program), "start", "--json", "--home", str(home)),
            own="TimeoutStopSec=30\nKillMode=mixed\n"
            "# A worker that takes too much memory is ended alone; the daemon starts another.\n"
            f"OOMPolicy=continue\nMemoryMax={memory}\nTasksMax=1024",
            devices=_devices(config),
            writes=home,
            reads=_read_only(config),
        )
    )


def how_to_install(service: SiteUnit, written: Path) -> list[str]:
    """Return what to type, as root, with the unit in a file."""
    doctor = [str(service.program), "doctor", "--home", str(service.home)]
    return how_to_install_unit(
        "wardround-site", user=service.user, folder=service.home, written=written, doctor=doctor
    )


def _devices(config: SiteConfig) -> str:
    if config.device == "cpu":
        return "PrivateDevices=yes\n"
    return "# The GPU and no other device.\nDevicePolicy=closed\nDeviceAllow=char-nvidia* rw\n"


def _read_only(config: SiteConfig) -> tuple[Path, ...]:
    """Return where patients lie."""
    if config.labels_csv.is_relative_to(config.data):
        return (config.data,)
    return config.data, config.labels_csv


def _mib(worker_gib: float) -> int:
    return int((worker_gib + _DAEMON_GIB) * 1024)
