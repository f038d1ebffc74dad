"""`init`: makes a coordinator."""

from __future__ import annotations

import socket

import typer

from server.files.coordinator_yaml import DEFAULT_PORT, new_settings
from server.files.folder import Folder


def init(folder: Folder, address: str | None, name: str | None) -> None:
    """Make keys, certificates, a token and settings, and say what comes next."""
    from server.enrolment.initialise import set_up

    machine = socket.getfqdn()
    given = f"{machine}:{DEFAULT_PORT}" if address is None else address
    settings = new_settings(name or socket.gethostname().partition(".")[0], given)
    set_up(folder, settings)
    typer.echo(f"The coordinator {settings.name} is in {folder.path}.")
    typer.echo(f"Sites will connect to {settings.address} (TLS 1.3, our own authority).")
    if address is None:
        typer.echo(
            "If they reach this machine by another name: wardround-coordinator move HOST:PORT"
        )
    typer.echo("Next: wardround-coordinator start   (and leave it running)")
