"""`run`: starts a run and shows it to its end."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer

from common.config.run_config import load_config, without_privacy
from common.extensions.pinning import pinned
from server.cli.watch import watched
from server.files.folder import Folder
from server.service.operator_client import Operator
from server.service.run_book import Ordered

__all__ = ["Ordered", "RunOptions", "run"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is started with beside its configuration."""

    ordered: Ordered
    without_privacy: bool
    detach: bool


def run(folder: Folder, path: Path, options: RunOptions) -> int:
    """Start a run and, unless detached, watch it to its end."""
    config = pinned(load_config(path))
    if options.without_privacy:
        config = without_privacy(config)
    with closing(Operator(folder)) as operator:
        name = operator.order(config.to_yaml(), options.ordered)
        typer.echo(f"Run {name} is started.")
        return watched(operator, name, detach=options.detach)
