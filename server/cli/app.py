"""`wardround-coordinator`: the commands of a federation's coordinator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from common.data.weight_files import take_weights_from
from common.platform.command_line import Reporting, check_nothing_before
from server.files.folder import Folder, default_folder


class _Reporting(Reporting):
    interrupted = "Interrupted; what runs in the service goes on."
    doctor = "wardround-coordinator doctor"


app = typer.Typer(
    cls=_Reporting,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "A federation's coordinator: it says who belongs, runs the training and exports the model."
        "\n\nFirst: wardround-coordinator init --address HOST:PORT, then: start, invite, plan, run."
    ),
    epilog=(
        "Exit status: 0 done, 1 the run failed, 2 wrong option or configuration, 3 data cannot be "
        "used, 4 privacy refused, 5 saved state is damaged, 6 not trusted, 7 not reached or not "
        "running, 130 interrupted or stopped."
    ),
)
sites = typer.Typer(cls=_Reporting, help="List, accept and revoke sites.")
app.add_typer(sites, name="sites")

FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help="Its folder; by default $WARDROUND_COORDINATOR or ~/.wardround/coordinator.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Wait for every site before the first round, and not for two minutes only for those "
        "that are away or have not approved.",
    ),
]
DetachOption = Annotated[bool, typer.Option("--detach", help="Do not wait for the run's end.")]
SeedOption = Annotated[
    int,
    typer.Option(
        min=0, max=2**63 - 1, help="Seed of first weights and data order; sites approve it too."
    ),
]
WithoutPrivacyOption = Annotated[
    bool, typer.Option("--without-privacy", help="Leave the privacy section out.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run, as `status` lists it.")]
NewestArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="The run; by default the one at work, or the last."),
]


def _chosen(folder: Path | None) -> Folder:
    chosen = Folder((folder or default_folder()).expanduser().absolute())
    take_weights_from(chosen.weights)
    return chosen


@app.command()
def init(
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Address that sites connect to; by default this machine."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The coordinator's name, as sites see it.")
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Make the coordinator's keys, certificates and settings."""
    from server.cli import init as command

    command.init(_chosen(folder), address, name)


@app.command()
def start(
    folder: FolderOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Log JSON lines.")] = False,
) -> None:
    """Run the service: sites connect to it, the other commands ask it."""
    from server.cli import start as command

    command.start(_chosen(folder), json=json)


@app.command()
def service(
    user: Annotated[
        str, typer.Option(help="The user that it runs as, and that does nothing else.")
    ] = "wardround",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, and say how to install it.")
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Print a hardened systemd unit, so that the coordinator starts with its machine."""
    from server.cli import service as command

    command.write_service(_chosen(folder), user, out)


@app.command()
def invite(
    site: Annotated[list[str], typer.Argument(metavar="SITE...", help="Names, e.g. st-marys.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write one file for each site there.")
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.01, max=720, help="How long an invitation works.")
    ] = 72.0,
    folder: FolderOption = None,
) -> None:
    """Print one line for each site: address, the authority's hash, a secret that works once."""
    from server.cli import invite as command

    command.invite(_chosen(folder), site, hours, out)


@sites.callback(invoke_without_command=True)
def list_sites(
    context: typer.Context,
    folder: FolderOption = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Show those who were revoked or have left, too.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List who belongs, who is connected and whose invitation is open."""
    if context.invoked_subcommand is None:
        from server.cli import sites as command

        command.show(_chosen(folder), every=every, json=json)
    else:
        check_nothing_before(context, folder, every, json)


@sites.command()
def accept(
    site: Annotated[
        list[str],
        typer.Argument(
            metavar="SITE=SHA256:...", help="Name and fingerprint, as the site's admin reads it."
        ),
    ],
    fingerprint: Annotated[str | None, typer.Option(metavar="SHA256:...", hidden=True)] = None,
    folder: FolderOption = None,
) -> None:
    """Accept sites that wait, by the fingerprints that their admins read to you."""
    from server.cli import sites as command

    command.accept(_chosen(folder), site, fingerprint)


@sites.command()
def revoke(
    site: Annotated[str, typer.Argument(metavar="SITE")], folder: FolderOption = None
) -> None:
    """Shut a site out at once, and its key for good."""
    from server.cli import sites as command

    command.revoke(_chosen(folder), site)


@app.command()
def move(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where sites find it then.")],
    folder: FolderOption = None,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also to a name that is not known yet.")
    ] = False,
) -> None:
    """Move the coordinator to another address; sites accept it by the authority's signature."""
    from server.cli.upkeep import move as command

    command.move_to(_chosen(folder), address, yes=yes)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    folder: FolderOption = None,
) -> None:
    """Write the coordinator into one file, while it runs or not: keys, sites and runs."""
    from server.cli.upkeep import backup as command

    command.write_backup(_chosen(folder), file)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `backup` wrote it.")],
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", metavar="SITE", help="It was revoked after the backup."),
    ] = None,
    folder: FolderOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make a coordinator's folder from a backup; runs go on from their saved rounds."""
    from server.cli.upkeep import backup as command

    command.restore_backup(_chosen(folder), file, tuple(revoke or ()), yes=yes)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")],
    seed: SeedOption = 0,
    folder: FolderOption = None,
    *,
    without_privacy: WithoutPrivacyOption = False,
    json: JsonOption = False,
) -> None:
    """Say what a run would cost each site, and what would stop it (exit status 1)."""
    from server.cli.plan import show_plan

    raise typer.Exit(
        show_plan(_chosen(folder), config, as_json=json, seed=seed, without=without_privacy)
    )


@app.command()
def run(  # noqa: PLR0913 - one parameter an option
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")],
    seed: SeedOption = 0,
    site: Annotated[
        list[str] | None, typer.Option("--site", help="Only these sites; may be given again.")
    ] = None,
    priority: Annotated[
        int,
        typer.Option(
            min=-100, max=100, help="Among runs that wait their turn the higher goes first."
        ),
    ] = 0,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Begin then: 22:00, or 2027-01-31 22:00, in this machine's time."
        ),
    ] = None,
    folder: FolderOption = None,
    *,
    without_privacy: WithoutPrivacyOption = False,
    wait: WaitOption = False,
    detach: DetachOption = False,
) -> None:
    """Start a run and watch it to its end; the exit status is the run's."""
    from server.cli import run as command

    ordered = command.Ordered(
        seed=seed,
        sites=tuple(site or ()),
        waits=wait,
        priority=priority,
        starts_at=command.start_time(at),
    )
    options = command.RunOptions(ordered=ordered, without_privacy=without_privacy, detach=detach)
    raise typer.Exit(command.run(_chosen(folder), config, options))


@app.command()
def status(
    run: NewestArgument = None, folder: FolderOption = None, *, json: JsonOption = False
) -> None:
    """Say where the runs are, what they wait for and what to do."""
    from server.cli import status as command

    command.status(_chosen(folder), run, json=json)


@app.command()
def watch(run: NewestArgument = None, folder: FolderOption = None) -> None:
    """Show a run until it is over; the exit status is the run's."""
    from server.cli import watch as command

    raise typer.Exit(command.watch_run(_chosen(folder), run))


@app.command()
def stop(run: RunArgument, folder: FolderOption = None) -> None:
    """Stop a run; it saves its round and can be resumed."""
    from server.cli import stop as command

    command.stop(_chosen(folder), run)


@app.command()
def resume(
    run: RunArgument,
    folder: FolderOption = None,
    *,
    wait: WaitOption = False,
    detach: DetachOption = False,
) -> None:
    """Go on with a run from its last saved round, and watch it."""
    from server.cli import resume as command

    raise typer.Exit(command.resume(_chosen(folder), run, waits=wait, detach=detach))


@app.command()
def export(
    run: NewestArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the bundle; by default bundle/ in the run's folder."
        ),
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Write a run's model as a bundle, with its card."""
    from server.cli import export as command

    command.export_run(_chosen(folder), run, out)


@app.command()
def cohorts(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of a run.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with classes and histograms.")
    ] = None,
    folder: FolderOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Ask the sites what they have for a run, in counts: found, used, left out; begins nothing."""
    from server.cli import cohorts as command

    command.ask(_chosen(folder), config, out, as_json=json)


@app.command()
def propose(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file of a run on patches of volumes.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the YAML there, not to the screen.")
    ] = None,
    memory: Annotated[
        float, typer.Option(min=0.5, metavar="GB", help="Memory of the device that trains.")
    ] = 8.0,
    folder: FolderOption = None,
) -> None:
    """Plan spacing, patch and batch from counts that sites tell; writes a YAML, begins nothing."""
    from server.cli import propose as command

    command.propose(_chosen(folder), config, out, memory)


@app.command()
def report(
    run: NewestArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the page there; by default in the run's folder."),
    ] = None,
    folder: FolderOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show what the sites told of their cohorts, and write it as a page: found, used, left out."""
    from server.cli import report as command

    command.report(_chosen(folder), run, out, as_json=json)


@app.command()
def doctor(folder: FolderOption = None) -> None:
    """Look for what would keep the coordinator from working, and say how to mend it."""
    from server.cli import doctor as command

    raise typer.Exit(command.doctor(_chosen(folder)))


def main() -> None:
    """Run the command."""
    sys.exit(app(standalone_mode=True))
