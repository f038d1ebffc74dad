from __future__ import annotations

import typer
from typer.testing import CliRunner

from common.platform.command_line import Reporting
from common.platform.errors import ExitCode, TrustRefused


def test_an_error_that_quotes_somebody_else_moves_no_cursor() -> None:
    class Commands(Reporting):
        interrupted, doctor = "", ""

    app = typer.Typer(cls=Commands)

    @app.command()
    def one() -> None:
        raise TrustRefused("The coordinator says no: \x1b[2J\x1b[1;1HReady.\u202e\nNext.")

    @app.command()
    def other() -> None:
        """Two commands make a group."""

    found = CliRunner().invoke(app, ["one"])
    assert found.exit_code == ExitCode.TRUST_REFUSED
    assert found.stderr == "Error: The coordinator says no: �[2J�[1;1HReady.�\nNext.\n"
