"""`doctor` of the coordinator."""

from __future__ import annotations

import typer

from common.platform.errors import ExitCode
from server.files.folder import Folder
from server.planning.doctor_checks import examine

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
