"""Errors and options that the commands of several programs share."""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer
from typer.core import TyperGroup
from typing_extensions import override

from common.platform.errors import ConfigurationError, ExitCode, WardroundError

ExtensionArgument = Annotated[str, typer.Argument(help="DISTRIBUTION, or DISTRIBUTION/NAME.")]
ExtensionValuesOption = Annotated[
    str, typer.Option(metavar="YAML", help="What a configuration would give it: '{width: 8}'.")
]
MadeUpSizeOption = Annotated[
    str, typer.Option(metavar="ROWS,COLUMNS", help="Of made-up images; three sides for 3-D.")
]
ContentOption = Annotated[
    str | None,
    typer.Option(metavar="HASH", help="Refuse another content than this, before it is run."),
]


#: One of ours that is missing is a fault of ours.
OWN_PACKAGES = frozenset({"client", "common", "server", "simulations", "wardround"})


class Reporting(TyperGroup):
    """Turns faults that a person can mend into one message and an exit status."""

    interrupted: ClassVar[str]  # what is said of Ctrl-C
    doctor: ClassVar[str]  # the command that looks for faults of this machine

    @override
    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # click's own Context
        try:
            return super().invoke(ctx)
        except WardroundError as error:
            typer.echo(f"Error: {_plain(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo(self.interrupted, err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in OWN_PACKAGES:
                raise
            typer.echo(
                f"Error: {package} is not installed here. A slim installation (site-slim.txt) "
                "takes part in runs and no more; install site.txt, or the extra that has it.",
                err=True,
            )
            raise typer.Exit(ExitCode.WRONG_CONFIGURATION) from error
        except BrokenPipeError:
            raise  # somebody who has read enough, e.g. `head`
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            message = f"Error: {where}{error.strerror or error}. See that the disk has room and "
            typer.echo(f"{message}that this user may use it: {self.doctor}", err=True)
            raise typer.Exit(ExitCode.RUN_FAILED) from error


def check_nothing_before(context: typer.Context, *given: object) -> None:
    """Raise ConfigurationError for options before a subcommand, which would not see them.

    It would look at another folder than was meant, and say that all is well there.
    """
    if any(given):
        what = context.invoked_subcommand
        message = f"Options belong behind {what}: {context.command_path} {what} OPTIONS"
        raise ConfigurationError(message)


def _plain(text: str) -> str:
    """Return a text as a terminal may show it: others' words in it may hold what moves a cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
