"""wardround-site's commands for results: a model's findings, back in the PACS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.cli_options import HomeOption, JsonOption
from client.home import Home

BundleOption = Annotated[Path, typer.Option(metavar="FOLDER", help="The bundle with the model.")]
SendOption = Annotated[bool, typer.Option("--send", help="Send the results to the PACS.")]


def register(app: typer.Typer) -> None:
    """Add the commands to wardround-site."""
    for command in (predict, listen, calibrate):
        app.command()(command)


def predict(
    study: Annotated[str, typer.Argument(help="A StudyInstanceUID, or a folder of DICOM files.")],
    bundle: BundleOption,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write results there.")] = None,
    home: HomeOption = None,
    *,
    send: SendOption = False,
    json: JsonOption = False,
) -> None:
    """Score a study with a model, and write what it found as DICOM and FHIR; for research."""
    from client.commands import predicting

    predicting.predict(Home.chosen(home), study, bundle, out, send=send, as_json=json)


def listen(
    bundle: BundleOption,
    home: HomeOption = None,
    *,
    send: SendOption = False,
) -> None:
    """Score studies as they arrive, by C-STORE or in a watched folder, until Ctrl-C."""
    from client.commands import listening

    listening.listen(Home.chosen(home), bundle, send=send)


def calibrate(
    bundle: BundleOption,
    home: HomeOption = None,
) -> None:
    """Fit temperature and conformal threshold of a model on this site's own patients."""
    from client.commands import predicting

    predicting.calibrate(Home.chosen(home), bundle)
