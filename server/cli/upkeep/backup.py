"""`backup` and `restore`: a coordinator in one file, and a coordinator from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from common.platform.errors import ConfigurationError
from server.enrolment.registry import Enrolment
from server.files.backup import back_up, check_backup, restore
from server.files.folder import Folder


def write_backup(folder: Folder, target: Path) -> None:
    """Write the file, and say how it is to be kept."""
    runs = back_up(folder, target)
    typer.echo(f"{target}: keys, sites and {runs} run{'s' * (runs != 1)}.")
    typer.echo("It holds the authority's key: keep it as secret as the coordinator itself.")


def restore_backup(folder: Folder, source: Path, revoked: Sequence[str], *, yes: bool) -> None:
    """Make the folder, once somebody has said who was shut out since the backup was made."""
    made = datetime.fromtimestamp(_changed(source), UTC).astimezone()
    check_backup(source)
    if not yes:
        typer.echo(
            f"The backup is of {made:%Y-%m-%d %H:%M}. Sites that were revoked since then are"
        )
        typer.echo(
            "accepted in it: shut them out again with --revoke SITE. See also that the other"
        )
        typer.echo("coordinator, if its folder is still there, is never started again.")
        if not typer.confirm("Restore it?"):
            typer.echo("Nothing was changed.")
            return
    restore(source, folder)
    enrolment = Enrolment(folder.enrolment)
    for site in revoked:
        enrolment.revoke(site)
    accepted = [site.name for site in enrolment.sites() if site.state == "accepted"]
    typer.echo(f"The coordinator is in {folder.path}. Accepted: {', '.join(accepted) or 'nobody'}.")
    typer.echo("Runs go on from the rounds that are saved in it. Next: wardround-coordinator start")


def _changed(source: Path) -> float:
    try:
        return source.stat().st_mtime
    except OSError as error:
        message = f"Cannot read {source}: {error.strerror}."
        raise ConfigurationError(message) from error
