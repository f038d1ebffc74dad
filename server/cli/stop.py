"""`stop`: ends a run, once it has saved."""

from __future__ import annotations

from contextlib import closing

import typer

from server.files.folder import Folder
from server.service.operator_client import Operator


def stop(folder: Folder, name: str) -> None:
    """Stop a run and wait until it has saved."""
    with closing(Operator(folder)) as operator:
        operator.stop(name)
    typer.echo(f"Run {name} is stopped. It goes on with: wardround-coordinator resume {name}")
