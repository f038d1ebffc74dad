"""wardround-site's commands for results: a model's findings, back in the PACS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.cli_options import HomeOption, JsonOption
from client.home import Home

BundleOption = Annotated[Path, typer.Option(metavar="FOLDER", help="The bundle with the model.")]
SendOption = Annotated[bool, typer.Option("--send", help="Send the results to the PACS.")]


commands = typer.Typer()


def register(app: typer.Typer) -> None:
    """Add the commands to wardround-site."""
    app.registered_commands += commands.registered_commands


@commands.command()
def predict(
    study: Annotated[str, typer.Argument(help="A StudyInstanceUID, or a folder of DICOM files.")],
    bundle: BundleOption,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write results there.")] = None,
    home: HomeOption = None,
    *,
    send: SendOption = False,
    abstain: Annotated[
        bool, typer.Option(help="Give no answer where the calibration advises against one.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Score a study with a model, and write what it found as DICOM and FHIR; for research.

    STUDY is a StudyInstanceUID that `wardround-site index` has found, or a folder or a file.
    """
    from client.commands import predicting

    wishes = predicting.Wanted(
        study=study, bundle=bundle, out=out, send=send, abstain=abstain
    )
    raise typer.Exit(predicting.predict(Home.chosen(home), wishes, as_json=json))


@commands.command()
def listen(
    bundle: BundleOption,
    home: HomeOption = None,
    *,
    send: SendOption = False,
) -> None:
    """Score studies as they arrive, by C-STORE or in a watched folder, until Ctrl-C."""
    from client.commands import listening

    listening.listen(Home.chosen(home), bundle, send=send)


@commands.command()
def calibrate(
    bundle: BundleOption,
    coverage: Annotated[
        float, typer.Option(help="Part of a class's patients whose set shall hold it.")
    ] = 0.9,
    unlike: Annotated[
        float, typer.Option(help="Part of usual studies that may be called unlike training.")
    ] = 0.05,
    home: HomeOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Fit a model's probabilities, sets and warnings on this site's own patients; they stay here.

    Patients are those whom the model was not trained on.
    """
    from client.commands import calibrating

    calibrating.calibrate(
        Home.chosen(home), bundle, coverage=coverage, unlike=unlike, as_json=json
    )
