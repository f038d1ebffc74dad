"""`propose`: a run's spacing, patch and batch, planned from what sites tell of their cohorts."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import typer

from common.config.run_config import load_config
from common.extensions.pinning import pinned
from common.platform.errors import ExitCode
from server.files.folder import Folder
from server.planning.planned_run import check_plannable, proposed
from server.rounds.cohort_survey import parse_survey
from server.service.operator_client import Operator


def propose(folder: Folder, config: Path, out: Path | None, memory_gb: float) -> None:
    """Ask the sites, plan, and show or write the configuration; nothing is begun or applied.

    Ends with RUN_FAILED where no site told anything.
    """
    run = load_config(config)
    check_plannable(run)
    with closing(Operator(folder)) as operator:
        found = parse_survey(operator.cohorts(pinned(run).to_yaml()))
    for site, why in sorted(found.not_told.items()):
        typer.echo(f"{site} told nothing: {why}", err=True)
    for site, epsilon in sorted(found.epsilon.items()):
        typer.echo(f"{site} charged epsilon {epsilon:.3g} for its counts.", err=True)
    if not found.sites:
        raise typer.Exit(ExitCode.RUN_FAILED)
    proposal = proposed(config, found.sites, memory_gb)
    if out is None:
        typer.echo(proposal.text, nl=False)
        return
    proposal.written(out)
    for line in proposal.remarks:
        typer.echo(line)
    typer.echo(f"Look at {out}, then: wardround-coordinator run {out}")
