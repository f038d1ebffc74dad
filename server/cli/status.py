"""`status`: where the runs are."""

from __future__ import annotations

from contextlib import closing

import typer
from rich.console import Console

from common.platform.errors import Unreachable
from server.cli.watch import show
from server.enrolment.certificates import now
from server.enrolment.moving import ends_soon
from server.files.folder import Folder
from server.files.status_reader import view_of
from server.service.operator_client import Operator


def status(folder: Folder, name: str | None, *, json: bool) -> None:
    """Say where the runs are; from the files, when the service does not run."""
    folder.require()
    down: Unreachable | None = None
    try:
        with closing(Operator(folder)) as operator:
            views = (operator.run(name),) if name else operator.runs()
    except Unreachable as error:
        down = error
        names = (name,) if name else folder.run_names()
        views = tuple(view_of(folder.run(run)) for run in names)
    if json:
        Console().print_json(data=[view.model_dump(mode="json") for view in views])
    else:
        show(views, Console())
        for sentence in ends_soon(folder, now()):
            typer.echo(sentence, err=True)
    if down is not None:
        raise down
