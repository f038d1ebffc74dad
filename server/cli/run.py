"""`run`, `watch`, `stop` and `resume`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from common.config.run_config import load_config, without_privacy
from common.extensions.pinning import pinned
from common.platform.errors import ConfigurationError
from server.cli.watch import watch
from server.files.folder import Folder
from server.files.status_reader import RunView, newest
from server.service.operator_client import Operator


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is started with beside its configuration."""

    seed: int
    sites: tuple[str, ...]
    without_privacy: bool
    detach: bool


def run(folder: Folder, path: Path, options: RunOptions) -> int:
    """Start a run and, unless detached, watch it to its end."""
    config = pinned(load_config(path))
    if options.without_privacy:
        config = without_privacy(config)
    with closing(Operator(folder)) as operator:
        name = operator.order(config.to_yaml(), options.seed, options.sites)
        typer.echo(f"Run {name} is started.")
        return _watched(operator, name, detach=options.detach)


def resume(folder: Folder, name: str, *, detach: bool) -> int:
    """Go on with a run from its last saved round."""
    with closing(Operator(folder)) as operator:
        operator.resume(name)
        typer.echo(f"Run {name} goes on.")
        return _watched(operator, name, detach=detach)


def watch_run(folder: Folder, name: str | None) -> int:
    """Show a run until it is over."""
    with closing(Operator(folder)) as operator:
        chosen = name or newest_name(operator.runs())
        return watch(lambda: operator.run(chosen), Console())


def stop(folder: Folder, name: str) -> None:
    """Stop a run and wait until it has saved."""
    with closing(Operator(folder)) as operator:
        operator.stop(name)
    typer.echo(f"Run {name} is stopped. It goes on with: wardround-coordinator resume {name}")


def _watched(operator: Operator, name: str, *, detach: bool) -> int:
    if detach:
        typer.echo(f"To see it: wardround-coordinator watch {name}")
        return 0
    return watch(lambda: operator.run(name), Console())


def newest_name(views: Iterable[RunView]) -> str:
    """Return the newest run's name; ConfigurationError when there is none."""
    found = newest(views)
    if found is None:
        message = "There is no run yet. Start one: wardround-coordinator run CONFIG"
        raise ConfigurationError(message)
    return found.name
