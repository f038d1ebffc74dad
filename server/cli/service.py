"""`service`: a systemd unit that starts the coordinator with its machine."""

from __future__ import annotations

from pathlib import Path

import typer

from common.platform.systemd import in_a_persons_home, installed
from server.files.coordinator_yaml import load_settings
from server.files.folder import Folder
from server.service.systemd import CoordinatorUnit, how_to_install, low_port, unit


def write_service(folder: Folder, user: str, out: Path | None) -> None:
    """Print the unit, or write it and say how it is installed."""
    folder.require()
    settings = load_settings(folder.settings)
    service = CoordinatorUnit(
        program=installed("wardround-coordinator"), folder=folder.path, user=user, settings=settings
    )
    if out is None:
        typer.echo(unit(service), nl=False)
        return
    out.write_text(unit(service), encoding="utf-8")
    typer.echo(f"Wrote {out}.")
    port = low_port(settings)
    if port is not None:
        typer.echo(f"Nobody but root may listen on port {port}: choose one from 1024 on, and let")
        typer.echo(f"the firewall pass {port} to it. It stands in {folder.settings}.")
    if in_a_persons_home(folder.path) and user != folder.path.owner():
        typer.echo(f"The user {user} cannot enter {folder.path}. Move it, and write the unit anew:")
        typer.echo(f"  mv {folder.path} /var/lib/wardround-coordinator")
        typer.echo(
            "  wardround-coordinator service --folder /var/lib/wardround-coordinator --out FILE"
        )
        return
    typer.echo("As root, type:")
    for line in how_to_install(service, out.absolute()):
        typer.echo(f"  {line}")
