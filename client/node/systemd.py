"""systemd unit of a site's daemon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from client.site.site_config import SiteConfig
from common.platform.systemd import Daemon, how_to_install_unit, unit_of

#: Memory of the daemon beside its worker.
_DAEMON_GIB = 1.0
_CPU = "PrivateDevices=yes\n"
_GPU = "# The GPU and no other device.\nDevicePolicy=closed\nDeviceAllow=char-nvidia* rw\n"


@dataclass(frozen=True, kw_only=True)
class SiteUnit:
    """What a unit is written for."""

    program: Path  # wardround-site as it is installed
    home: Path
    user: str
    config: SiteConfig


def unit(service: SiteUnit) -> str:
    """Return the unit's text; images and labels are only read."""
    config = service.config
    memory = "infinity" if config.memory_gib is None else f"{_mib(config.memory_gib)}M"
    devices = _CPU if config.device == "cpu" else _GPU
    daemon = _daemon(f"Wardround site {config.name}", service.program, service.home, memory)
    return unit_of(replace(daemon, user=service.user, devices=devices, reads=_read_only(config)))


def packaged_unit(program: Path, home: Path) -> str:
    """Return the unit of a package, which is installed before anybody has written a site.yaml."""
    return unit_of(_daemon("Wardround site", program, home, "infinity"))


def _daemon(description: str, program: Path, home: Path, memory: str) -> Daemon:
    return Daemon(
        description=description,
        user="wardround",
        command=(str(program), "start", "--json", "--home", str(home)),
        own="TimeoutStopSec=30\nKillMode=mixed\n"
        "# A worker that takes too much memory is ended alone; the daemon starts another.\n"
        f"OOMPolicy=continue\nMemoryMax={memory}\nTasksMax=1024",
        devices=_GPU,
        writes=home,
    )


def how_to_install(service: SiteUnit, written: Path) -> list[str]:
    """Return what to type, as root, with the unit in a file."""
    doctor = [str(service.program), "doctor", "--home", str(service.home)]
    return how_to_install_unit(
        "wardround-site", user=service.user, folder=service.home, written=written, doctor=doctor
    )


def _read_only(config: SiteConfig) -> tuple[Path, ...]:
    """Return where patients lie."""
    if config.labels_csv.is_relative_to(config.data):
        return (config.data,)
    return config.data, config.labels_csv


def _mib(worker_gib: float) -> int:
    return int((worker_gib + _DAEMON_GIB) * 1024)
