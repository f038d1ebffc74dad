"""`start`: the coordinator's service."""

from __future__ import annotations

import typer

from server.files.coordinator_yaml import Settings
from server.files.folder import Folder


def start(folder: Folder, *, json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from server.service.serve import run_service

    def announce(settings: Settings) -> None:
        typer.echo(f"The coordinator {settings.name} listens for sites at {settings.address}.")
        typer.echo("Next, in another terminal: wardround-coordinator invite SITE")

    run_service(folder, json=json, announce=announce)
