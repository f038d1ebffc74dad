"""Options that several commands of `wardround-site` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="The site's own folder; by default $WARDROUND_SITE or ~/.wardround/site.",
    ),
]
DataOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder with the DICOM files; only read.")
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The table of labels, if it is not labels.csv in the data folder."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AllOption = Annotated[bool, typer.Option("--all", help="Name every single one.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN|CONFIG.yaml", help="As `wardround-site runs` lists it.")
]
