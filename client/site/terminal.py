"""Output and questions on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from client.site.plain_text import shown
from common.platform.errors import ConfigurationError


def say(text: str = "") -> None:
    """Print a line."""
    typer.echo(text)


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows with their columns under each other; the last one may be of any length."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        say("  ".join([*cells, row[-1]]).rstrip())


def ask(question: str) -> bool:
    """Return whether the answer is yes; ConfigurationError when nobody can answer."""
    typer.echo(f"{question} [y/N] ", nl=False)
    line = sys.stdin.readline()
    if not line:
        say()
        message = "Nobody answered, so nothing was changed. Give --yes to answer beforehand."
        raise ConfigurationError(message)
    return line.strip().lower() in {"y", "yes"}


def as_text(value: object) -> str:
    """Return what came from elsewhere as a terminal may show it."""
    return shown(str(value))
