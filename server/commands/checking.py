"""wardround-coordinator doctor."""

from __future__ import annotations

import typer

from common.errors import ExitCode
from server.checks import examine
from server.folder import Folder

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


def doctor(folder: Folder) -> int:
    """Print every finding; the exit status says whether anything is wrong."""
    wrong = 0
    for finding in examine(folder):
        typer.echo(f"{_MARKS[finding.state]}  {finding.check}: {finding.detail}")
        if finding.fix:
            typer.echo(f"         fix: {finding.fix}")
        wrong += finding.state == "wrong"
    if wrong:
        typer.echo(f"{wrong} of these must be mended.", err=True)
    return ExitCode.RUN_FAILED if wrong else ExitCode.DONE
