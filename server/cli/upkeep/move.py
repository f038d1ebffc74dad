"""`move`: the coordinator gets another address, and sites a signed notice of it."""

from __future__ import annotations

import socket

import typer

from common.platform.file_lock import is_held
from server.enrolment.certificates import now
from server.enrolment.moving import move
from server.files.coordinator_yaml import host_and_port, load_settings, new_settings
from server.files.folder import Folder


def move_to(folder: Folder, address: str, *, yes: bool) -> None:
    """Change the address, and say how sites hear of it; a name that nobody knows is asked about."""
    folder.require()
    settings = load_settings(folder.settings)
    before, wanted = settings.address, new_settings(settings.name, address).address
    host = host_and_port(wanted)[0]
    if not yes and not _is_known(host):
        typer.echo(f"No address of {host!r} is known on this machine. Is the name spelt right?")
        if not typer.confirm("Move the coordinator there all the same?"):
            typer.echo("Nothing was changed.")
            return
    notice = move(folder, address, now())
    after = load_settings(folder.settings)
    typer.echo(f"From {before} to {after.address}; the service listens at {after.listen}.")
    if is_held(folder.lock):
        typer.echo("The running service stays where it is and tells sites, each within 5 minutes.")
        typer.echo("Then start it anew, here or with this folder on the new machine.")
    else:
        typer.echo("From its next start on, the service tells sites that come by the old address.")
    typer.echo("Sites that hear of it in no other way: their admin types")
    typer.echo(f"wardround-site move {notice.text()}")


def _is_known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False
