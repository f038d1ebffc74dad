"""wardround-coordinator init and start."""

from __future__ import annotations

import socket

import typer

from server.folder import Folder
from server.settings import DEFAULT_PORT, Settings, new_settings


def init(folder: Folder, address: str | None, name: str | None) -> None:
    """Make keys, certificates, a token and settings, and say what comes next."""
    from server.foundation import set_up

    machine = socket.getfqdn()
    given = f"{machine}:{DEFAULT_PORT}" if address is None else address
    settings = new_settings(name or socket.gethostname().partition(".")[0], given)
    set_up(folder, settings)
    typer.echo(f"The coordinator {settings.name} is in {folder.path}.")
    typer.echo(f"Sites will connect to {settings.address} (TLS 1.3, our own authority).")
    if address is None:
        typer.echo("If they reach this machine by another name, say so: init --address HOST:PORT")
    typer.echo("Next: wardround-coordinator start   (and leave it running)")


def start(folder: Folder, *, json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from server.service import run_service

    def announce(settings: Settings) -> None:
        typer.echo(f"The coordinator {settings.name} listens for sites at {settings.address}.")
        typer.echo("Next, in another terminal: wardround-coordinator invite SITE")

    run_service(folder, json=json, announce=announce)
