"""Commands for results: predict, listen, calibrate, deidentify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from client.cli.options import AllOption, HomeOption, JsonOption
from client.site.home import Home
from common.platform.errors import ConfigurationError

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
    from client.cli import predict as command

    wishes = command.PredictOptions(study=study, bundle=bundle, out=out, send=send, abstain=abstain)
    raise typer.Exit(command.predict(Home.chosen(home), wishes, as_json=json))


@commands.command()
def listen(
    bundle: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The bundle with the model.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take studies from this folder, not by C-STORE."),
    ] = None,
    home: HomeOption = None,
    *,
    send: SendOption = False,
    show: Annotated[
        bool, typer.Option("--list", help="Show what arrived and what became of it, and end.")
    ] = False,
) -> None:
    """Score studies as they arrive, by C-STORE or in a watched folder, until Ctrl-C.

    A study is scored when the PACS has no more images of it than came, or, with no PACS to ask,
    when nothing came for pacs.listen.settle_seconds.
    """
    from client.cli import listen as command

    if show:
        raise typer.Exit(command.show(Home.chosen(home)))
    if bundle is None:
        message = "Give the model that scores: --bundle FOLDER. To see what arrived: --list"
        raise ConfigurationError(message)
    wishes = command.ListenOptions(bundle=bundle, folder=folder, send=send)
    raise typer.Exit(command.listen(Home.chosen(home), wishes))


@commands.command()
def calibrate(
    bundle: BundleOption,
    coverage: Annotated[
        float, typer.Option(help="Part of a class's patients whose set shall hold the class.")
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
    from client.cli import calibrate as command

    command.calibrate(Home.chosen(home), bundle, coverage=coverage, unlike=unlike, as_json=json)


@commands.command()
def deidentify(
    source: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="DICOM images.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Write what may leave there.")],
    dates: Annotated[
        Literal["shift", "remove"],
        typer.Option(help="Shift each patient's dates by days of their own, or remove them."),
    ] = "shift",
    home: HomeOption = None,
    *,
    keep_characteristics: Annotated[
        bool, typer.Option("--keep-characteristics", help="Keep sex, age, size and weight.")
    ] = False,
    pixels_checked: Annotated[
        bool, typer.Option("--pixels-checked", help="A person looked: no text in the pictures.")
    ] = False,
    every: AllOption = False,
) -> None:
    """Write images as they may leave: names, numbers and texts gone, identifiers by a secret key.

    Images whose header or kind makes text in the picture likely are withheld until a person has
    looked. Reports, documents and waveforms are always withheld.
    """
    from client.cli import deidentify as command
    from client.dicom.deidentify.deidentify import Dates, Profile

    profile = Profile(
        dates=Dates(dates), keep_characteristics=keep_characteristics, pixels_checked=pixels_checked
    )
    raise typer.Exit(command.run(Home.chosen(home), source, out, profile, every=every))
