"""`invite`: invitations for sites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from common.platform.durable_files import replace_durably
from server.enrolment.registry import Enrolment, invite_sites
from server.files.coordinator_yaml import load_settings
from server.files.folder import Folder


def invite(folder: Folder, sites: Sequence[str], hours: float, out: Path | None) -> None:
    """Print or write an invitation for each site."""
    folder.require()
    enrolment = Enrolment(folder.enrolment)
    made = invite_sites(folder, load_settings(folder.settings), enrolment, sites, hours)
    for site, line in made.items():
        if out is None:
            typer.echo(line if len(made) == 1 else f"{site} {line}")
        else:
            path = out / f"{site}.invite"
            replace_durably(path, f"{line}\n".encode(), mode=0o600)
            typer.echo(str(path))
    typer.echo(
        f"Each works once and for {hours:g} hours; send it by a way that only the site's admin "
        "reads. There: wardround-site join "
        "INVITE --data FOLDER\n"
        "Then, here, with the fingerprint that the admin reads to you: "
        f"wardround-coordinator sites accept {sites[0]}=SHA256:...",
        err=True,
    )
