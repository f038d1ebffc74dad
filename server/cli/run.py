"""`run`: starts a run and shows it to its end."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

import typer

from common.config.run_config import load_config, without_privacy
from common.extensions.pinning import pinned
from common.platform.errors import ConfigurationError
from server.cli.watch import watched
from server.files.folder import Folder
from server.service.operator_client import Operator
from server.service.run_book import Ordered

__all__ = ["Ordered", "RunOptions", "run", "start_time"]

_LONGEST_WAIT = timedelta(days=366)
_TIME_OF_DAY = re.compile("[0-9]{1,2}:[0-9]{2}")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is started with beside its configuration."""

    ordered: Ordered
    without_privacy: bool
    detach: bool


def start_time(text: str | None) -> datetime | None:
    """Return the time that a person means: the next such time of day, or a day and a time.

    ConfigurationError for what is no time, is over, or is more than a year away.
    """
    if text is None:
        return None
    now = datetime.now().astimezone()
    try:
        if _TIME_OF_DAY.fullmatch(text):
            found = datetime.combine(now.date(), time.fromisoformat(text.zfill(5))).astimezone()
            return found if found > now else (found + timedelta(days=1))
        found = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        message = f"--at={text!r} is no time; write 22:00, or {now:%Y-%m-%d} 22:00."
        raise ConfigurationError(message) from error
    if found < now:
        message = f"--at={text!r} is over; it is {now:%Y-%m-%d %H:%M}."
        raise ConfigurationError(message)
    if found > now + _LONGEST_WAIT:
        message = f"--at={text!r} is more than a year away. Is the year right?"
        raise ConfigurationError(message)
    return found


def run(folder: Folder, path: Path, options: RunOptions) -> int:
    """Start a run and, unless detached, watch it to its end."""
    config = pinned(load_config(path))
    if options.without_privacy:
        config = without_privacy(config)
    with closing(Operator(folder)) as operator:
        name = operator.order(config.to_yaml(), options.ordered)
        begins = options.ordered.starts_at
        when = f"begins at {begins:%Y-%m-%d %H:%M}" if begins is not None else "is started"
        typer.echo(f"Run {name} {when}.")
        return watched(operator, name, detach=options.detach)
