"""`cohorts`: asks the sites what they have for a run."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import typer

from common.config.run_config import load_config
from common.extensions.pinning import pinned
from common.platform.errors import ExitCode
from server.files.folder import Folder
from server.rounds.cohort_report import said, write_report
from server.rounds.cohort_survey import Survey, parse_survey
from server.service.operator_client import Operator


def ask(folder: Folder, config: Path, out: Path | None, *, as_json: bool) -> None:
    """Ask the connected sites to describe their cohorts for a configuration; nothing is begun.

    Ends with RUN_FAILED where no site told anything.
    """
    run = pinned(load_config(config))
    with closing(Operator(folder)) as operator:
        found = parse_survey(operator.cohorts(run.to_yaml()))
    if as_json:
        typer.echo(survey_json(found))
    else:
        for line in said(found):
            typer.echo(line)
        if out is not None:
            write_report(out, found)
            typer.echo(f"The page with classes and histograms: {out}")
    if not found.sites:
        raise typer.Exit(ExitCode.RUN_FAILED)


def survey_json(found: Survey) -> str:
    """Return what each site told, and all of it merged, as JSON."""
    return json.dumps({**found.to_json(), "merged": _merged(found)}, indent=1)


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
