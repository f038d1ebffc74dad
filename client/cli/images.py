"""Commands for the cohort: pull, index, report, outcomes, withdraw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.cli.options import AllOption, HomeOption, JsonOption, YesOption
from client.site.home import Home


def register(app: typer.Typer) -> None:
    """Add the commands to wardround-site."""
    for command in (pull, index, report, outcomes, withdraw):
        app.command()(command)


def pull(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """Fetch studies from the PACS into the data folder; goes on where it stopped."""
    from client.cli import pull as command

    command.run(Home.chosen(home), as_json=json)


def index(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Prepare for this run as well.")
    ] = None,
    home: HomeOption = None,
    *,
    every: AllOption = False,
) -> None:
    """Read the images once, so that no round waits for it; say what cannot be used and why.

    With CONFIG.yaml, prepare what its run takes and count its patients.
    """
    from client.cli import doctor as command

    command.index(Home.chosen(home), config, every=every)


def report(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Compare with this run's needs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.html and report.json there.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Say what was found, what can be used, and why the rest cannot: HTML and JSON, kept here."""
    from client.cli import report as command

    command.report(Home.chosen(home), config, out)


def outcomes(
    source: Annotated[
        Path, typer.Argument(metavar="OUTCOMES.yaml", help="It says what to ask, and whom.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The table to write.")] = None,
    home: HomeOption = None,
) -> None:
    """Make the table of labels from a FHIR server or an OMOP database."""
    from client.cli import outcomes as command

    command.fetch(Home.chosen(home), source, out)


def withdraw(
    patient: Annotated[
        str | None, typer.Argument(metavar="PATIENT", help="The PatientID, as in the images.")
    ] = None,
    home: HomeOption = None,
    *,
    yes: YesOption = False,
    listing: Annotated[bool, typer.Option("--list", help="List who was withdrawn.")] = False,
    pulled: Annotated[
        bool, typer.Option("--delete-pulled", help="Delete what `pull` fetched of them, too.")
    ] = False,
) -> None:
    """Take a patient out of index, cache and every later round, for good.

    What was trained before keeps what it learnt, and the ledger keeps what was spent.
    """
    from client.cli import withdraw as command

    if listing:
        command.list_withdrawn(Home.chosen(home))
    else:
        command.withdraw(Home.chosen(home), patient, yes=yes, delete_pulled=pulled)
