"""`wardround-site`: the commands of a hospital, from the invitation to what has left."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.cli import images, results
from client.cli.options import (
    AllOption,
    DataOption,
    HomeOption,
    JsonOption,
    LabelsOption,
    RunArgument,
    YesOption,
)
from client.site.home import Home
from common.platform.command_line import Reporting
from common.platform.errors import ExitCode


class _Reporting(Reporting):
    interrupted = "Interrupted. The same command goes on where it stopped."
    doctor = "wardround-site doctor"


app = typer.Typer(
    cls=_Reporting,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "A hospital's side of a federation: what runs here, what it may cost, and what has left."
        "\n\nFirst: wardround-site join INVITE --data FOLDER, then: wardround-site start"
    ),
    epilog=(
        "Exit status: 0 done, 1 failed, 2 wrong option or configuration, 3 data cannot be used, "
        "4 privacy refused, 5 saved state is damaged, 6 not trusted or not known, 7 not reached "
        "or not running, 130 interrupted."
    ),
)
disclosures = typer.Typer(cls=_Reporting, help="List and verify what has left this site.")
app.add_typer(disclosures, name="disclosures")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="This site's name, e.g. st-marys.")],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder with the DICOM files.")],
    labels: LabelsOption = None,
    home: HomeOption = None,
) -> None:
    """Write site.yaml, so that you can look at it before joining; `join --data` writes it as well.

    NAME is this site's name as the coordinator will invite it, such as st-marys.
    """
    from client.cli import join as command

    command.init(Home.chosen(home), name, data, labels)


@app.command()
def join(
    invite: Annotated[str, typer.Argument(help="The invitation's line, or a file that holds it.")],
    data: DataOption = None,
    labels: LabelsOption = None,
    approve: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.yaml", help="Approve this configuration beforehand."),
    ] = None,
    home: HomeOption = None,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until we are accepted.")] = False,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Put the old key aside, e.g. after it was revoked.")
    ] = False,
) -> None:
    """Join a coordinator: make the key here, and say which fingerprint to read to them.

    INVITE is the line that the coordinator sent, or a file that holds it.
    """
    from client.cli import join as command

    options = command.JoinOptions(
        invite=invite, data=data, labels=labels, approve=approve, wait=wait, new_key=new_key
    )
    command.join_coordinator(Home.chosen(home), options)


@app.command()
def doctor(
    part: Annotated[
        Literal["site", "pacs"], typer.Argument(metavar="[pacs]", help="Check the PACS alone.")
    ] = "site",
    home: HomeOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Check network, TLS, clock, disk, GPU, cohort and records; give each fault with its fix.

    With `pacs`, check what the hospital's PACS answers instead.
    """
    from client.cli import doctor as command

    raise typer.Exit(command.show_findings(Home.chosen(home), part, as_json=json))


# Here, so that --help lists them in the order in which a site needs them.
images.register(app)


@app.command()
def start(
    home: HomeOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Log JSON, for programs.")] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM: wait for the coordinator, train what was approved."""
    from client.node.daemon import run_daemon

    run_daemon(Home.chosen(home), json_logs=json)


@app.command()
def status(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """Say what the site does now, and what to type next; exit status 7 when it is not running."""
    from client.cli import status as command

    raise typer.Exit(command.show_status(Home.chosen(home), as_json=json))


@app.command()
def runs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Show this one in full.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """List the runs that were proposed: approved, refused, or waiting for an answer.

    With RUN, show that one in full.
    """
    from client.cli import approve as command

    command.show_runs(Home.chosen(home), run)


@app.command()
def approve(run: RunArgument, home: HomeOption = None, *, yes: YesOption = False) -> None:
    """Show what a run does here and what changed, and allow exactly that.

    RUN is one that `wardround-site runs` lists; CONFIG.yaml answers before a run asks.
    """
    from client.cli import approve as command

    command.decide(Home.chosen(home), run, "approved", yes=yes)


@app.command()
def refuse(run: RunArgument, home: HomeOption = None, *, yes: YesOption = False) -> None:
    """Refuse a run; the coordinator is told that, and no more.

    RUN is one that `wardround-site runs` lists; CONFIG.yaml answers before a run asks.
    """
    from client.cli import approve as command

    command.decide(Home.chosen(home), run, "declined", yes=yes)


@app.command()
def budget(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """Show the privacy that was spent on the patients, by run, and what is left."""
    from client.cli import budget as command

    command.show_budget(Home.chosen(home), as_json=json)


@app.command()
def extensions(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """List installed code of others that runs could use: its content, and whether it is allowed."""
    from client.cli import extensions as command

    command.show_extensions(Home.chosen(home), as_json=json)


@app.command("records")
def check_records(
    home: HomeOption = None,
    *,
    lost: Annotated[
        bool,
        typer.Option(
            "--declare-lost", help="The newest copy is truly lost: charge back what is known of it."
        ),
    ] = False,
    epsilon: Annotated[
        float | None,
        typer.Option(help="What had been spent, where these records do not know it themselves."),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Check that ledger and withdrawals are the newest there were, and say what to do if not.

    An old copy put back from a backup would forget what was spent and who was withdrawn.
    """
    from client.cli import records as command

    chosen = Home.chosen(home)
    if lost:
        command.declare(chosen, epsilon, yes=yes)
    else:
        command.check(chosen)


@disclosures.callback(invoke_without_command=True)
def disclosures_by_default(context: typer.Context) -> None:
    """Show what has left this site: one line for each message."""
    if context.invoked_subcommand is None:
        list_disclosures()


@disclosures.command("list")
def list_disclosures(
    home: HomeOption = None, *, every: AllOption = False, json: JsonOption = False
) -> None:
    """List the messages that left: what, to whom, how much, and the privacy spent by then."""
    from client.cli import budget as command

    command.show_disclosures(Home.chosen(home), everything=every, as_json=json)


@disclosures.command("verify")
def verify_disclosures(
    head: Annotated[
        str, typer.Argument(metavar="[HASH]", help="A last hash that was written down before.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another copy of disclosures.jsonl.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Check that no line was changed, removed or put in; needs no network.

    With HASH, a last hash that was written down before, lines missing at the end show as well.
    """
    from client.cli import budget as command

    command.verify_disclosures(Home.chosen(home), head, file)


results.register(app)


@app.command()
def pause(home: HomeOption = None) -> None:
    """Take no new requests, until `resume`."""
    from client.cli import status as command

    command.pause(Home.chosen(home))


@app.command()
def resume(home: HomeOption = None) -> None:
    """Take requests again after `pause`."""
    from client.cli import status as command

    command.resume(Home.chosen(home))


@app.command()
def service(
    user: Annotated[
        str, typer.Option(help="The user that it runs as, and that does nothing else.")
    ] = "wardround",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, and say how to install it.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Print a hardened systemd unit, so that the site starts with its machine."""
    from client.cli import doctor as command

    command.write_service(Home.chosen(home), user, out)


def main() -> None:
    """Run the command; whatever it writes is for its user alone."""
    os.umask(0o077)
    try:
        app()
    except KeyboardInterrupt:  # before a command had begun
        sys.exit(ExitCode.INTERRUPTED)
