"""`cohorts` and `report`: what the sites say of their cohorts."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import typer

from common.config.run_config import load_config
from common.extensions.pinning import pinned
from common.platform.errors import ConfigurationError, ExitCode
from server.files.folder import Folder
from server.files.run_status import newest, view_of
from server.rounds.cohort_report import said, write_report
from server.rounds.cohort_survey import Survey, parse_survey, read_survey
from server.service.operator_client import Operator


def report(folder: Folder, name: str | None, out: Path | None, *, as_json: bool) -> None:
    """Print what is known of a run's cohorts, and write it as a page."""
    folder.require()
    chosen = name or _newest(folder)
    place = folder.run(chosen)
    found = read_survey(place.cohort)
    if found is None:
        raise ConfigurationError(_why_none(folder, chosen))
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "merged": _merged(found)}, indent=1))
        return
    for line in said(found):
        typer.echo(line)
    path = out or place.report
    write_report(path, found)
    typer.echo(f"The page with classes and histograms: {path}")


def ask(folder: Folder, config: Path, out: Path | None, *, as_json: bool) -> None:
    """Ask the connected sites to describe their cohorts for a configuration; nothing is begun.

    Ends with RUN_FAILED where no site told anything.
    """
    run = pinned(load_config(config))
    with closing(Operator(folder)) as operator:
        found = parse_survey(operator.cohorts(run.to_yaml()))
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "merged": _merged(found)}, indent=1))
    else:
        for line in said(found):
            typer.echo(line)
        if out is not None:
            write_report(out, found)
            typer.echo(f"The page with classes and histograms: {out}")
    if not found.sites:
        raise typer.Exit(ExitCode.RUN_FAILED)


def _merged(found: Survey) -> dict[str, object]:
    return {
        name: {
            "unit": table.unit,
            "sites": list(table.sites),
            "rows": {
                row: {"told": value.told, "held_back_by": list(value.held_back_by)}
                for row, value in table.rows.items()
            },
        }
        for name, table in found.merged().items()
    }


def _newest(folder: Folder) -> str:
    found = newest(view_of(folder.run(name)) for name in folder.run_names())
    if found is None:
        message = "There is no run yet. Start one: wardround-coordinator run CONFIG"
        raise ConfigurationError(message)
    return found.name


def _why_none(folder: Folder, name: str) -> str:
    if not folder.run(name).run.is_file():
        known = ", ".join(folder.run_names()[-5:]) or "none yet"
        return f"There is no run {name!r}; there are: {known}."
    return (
        f"The sites have told nothing of their cohorts for {name} yet: they are asked once enough "
        f"of them take part. To see what it waits for: wardround-coordinator status {name}"
    )
