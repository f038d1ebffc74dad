"""`export`: a run's model as a bundle."""

from __future__ import annotations

from pathlib import Path

import typer

from server.cli.watch import newest_name
from server.files.folder import Folder
from server.files.status_reader import view_of


def export_run(folder: Folder, name: str | None, out: Path | None) -> None:
    """Write a run's model as a bundle."""
    from server.bundle.export import export

    folder.require()
    chosen = name or newest_name(view_of(folder.run(known)) for known in folder.run_names())
    place = folder.run(chosen)
    target = out or place.bundle
    export(place.path, target)
    typer.echo(f"The model of {chosen} is in {target}; its README.md is the model card.")
    typer.echo(
        "Send that folder to a site, which uses it with: wardround-site calibrate --bundle FOLDER"
    )
