"""`run`, `status`, `watch`, `stop`, `resume` and `export`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from common.config.run_config import load_config, without_privacy
from common.extensions.pinning import pinned
from common.platform.errors import ConfigurationError, Unreachable
from server.cli.watch import show, watch
from server.files.folder import Folder
from server.files.run_status import RunView, newest, view_of
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
        chosen = name or _newest(operator.runs())
        return watch(lambda: operator.run(chosen), Console())


def stop(folder: Folder, name: str) -> None:
    """Stop a run and wait until it has saved."""
    with closing(Operator(folder)) as operator:
        operator.stop(name)
    typer.echo(f"Run {name} is stopped. It goes on with: wardround-coordinator resume {name}")


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
    if down is not None:
        raise down


def export_run(folder: Folder, name: str | None, out: Path | None) -> None:
    """Write a run's model as a bundle."""
    from server.bundle.export import export

    folder.require()
    chosen = name or _newest(view_of(folder.run(known)) for known in folder.run_names())
    place = folder.run(chosen)
    target = out or place.bundle
    export(place.path, target)
    typer.echo(f"The model of {chosen} is in {target}; its README.md is the model card.")
    typer.echo(
        "Send that folder to a site, which uses it with: wardround-site calibrate --bundle FOLDER"
    )


def _watched(operator: Operator, name: str, *, detach: bool) -> int:
    if detach:
        typer.echo(f"To see it: wardround-coordinator watch {name}")
        return 0
    return watch(lambda: operator.run(name), Console())


def _newest(views: Iterable[RunView]) -> str:
    found = newest(views)
    if found is None:
        message = "There is no run yet. Start one: wardround-coordinator run CONFIG"
        raise ConfigurationError(message)
    return found.name
