"""`resume`: goes on with a run from its last saved round."""

from __future__ import annotations

from contextlib import closing

import typer

from server.cli.watch import watched
from server.files.folder import Folder
from server.service.operator_client import Operator


def resume(folder: Folder, name: str, *, waits: bool, detach: bool) -> int:
    """Go on with a run from its last saved round."""
    with closing(Operator(folder)) as operator:
        operator.resume(name, waits=waits)
        typer.echo(f"Run {name} goes on.")
        return watched(operator, name, detach=detach)
