"""`report`: what the sites told of their cohorts for a run."""

from __future__ import annotations

from pathlib import Path

import typer

from common.platform.errors import ConfigurationError
from server.cli.cohorts import survey_json
from server.cli.watch import newest_name
from server.files.folder import Folder
from server.files.status_reader import view_of
from server.rounds.cohort_report import said, write_report
from server.rounds.cohort_survey import read_survey


def report(folder: Folder, name: str | None, out: Path | None, *, as_json: bool) -> None:
    """Print what is known of a run's cohorts, and write it as a page."""
    folder.require()
    chosen = name or newest_name(view_of(folder.run(known)) for known in folder.run_names())
    place = folder.run(chosen)
    found = read_survey(place.cohort)
    if found is None:
        raise ConfigurationError(_why_none(folder, chosen))
    if as_json:
        typer.echo(survey_json(found))
        return
    for line in said(found):
        typer.echo(line)
    path = out or place.report
    write_report(path, found)
    typer.echo(f"The page with classes and histograms: {path}")


def _why_none(folder: Folder, name: str) -> str:
    if not folder.run(name).run.is_file():
        known = ", ".join(folder.run_names()[-5:]) or "none yet"
        return f"There is no run {name!r}; there are: {known}."
    return (
        f"The sites have told nothing of their cohorts for {name} yet: they are asked once enough "
        f"of them take part. To see what it waits for: wardround-coordinator status {name}"
    )
