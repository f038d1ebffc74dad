"""`wardround-site`: the commands of a hospital, from the invitation to what has left."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.site.home import Home
from common.data.weight_files import take_weights_from
from common.platform.command_line import (
    ContentOption,
    ExtensionArgument,
    ExtensionValuesOption,
    MadeUpSizeOption,
    Reporting,
    check_nothing_before,
)
from common.platform.errors import ConfigurationError, ExitCode

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="The site's own folder; by default $WARDROUND_SITE or ~/.wardround/site.",
    ),
]
FederationOption = Annotated[
    str | None,
    typer.Option("--federation", metavar="NAME", help="Which one, where this home serves several."),
]
DataOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder with the DICOM files; only read.")
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="The table of labels, if it is not labels.csv in the data folder."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AllOption = Annotated[bool, typer.Option("--all", help="Name every single one.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN|CONFIG.yaml", help="As `wardround-site runs` lists it.")
]


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


def _chosen(home: Path | None) -> Home:
    chosen = Home.chosen(home)
    take_weights_from(chosen.weights)
    return chosen


def _one(home: Path | None, federation: str | None) -> Home:
    """Return the home as the federation that is meant sees it."""
    return _chosen(home).one(federation)


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
    from client.cli import init as command

    command.init(_chosen(home), name, data, labels)


@app.command()
def join(  # noqa: PLR0913 - one parameter an option
    invite: Annotated[str, typer.Argument(help="The invitation's line, or a file that holds it.")],
    data: DataOption = None,
    labels: LabelsOption = None,
    approve: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.yaml", help="Approve this configuration beforehand."),
    ] = None,
    home: HomeOption = None,
    federation: Annotated[
        str | None,
        typer.Option(
            "--federation",
            metavar="NAME",
            help="Join one more, called so here; runs of all spend from one budget.",
        ),
    ] = None,
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
    chosen = _chosen(home)
    command.join_coordinator(chosen if federation is None else chosen.of(federation), options)


@app.command()
def leave(
    home: HomeOption = None,
    federation: FederationOption = None,
    *,
    yes: YesOption = False,
    without_them: Annotated[
        bool, typer.Option("--without-them", help="Destroy the key although they cannot be told.")
    ] = False,
) -> None:
    """Leave the coordinator: it is told, and this site's key is destroyed.

    Ledger, withdrawals, approvals and disclosures stay here.
    """
    from client.cli.membership import leave as command

    command.leave_federation(_one(home, federation), yes=yes, without_them=without_them)


@app.command("rotate-key")
def rotate_key(home: HomeOption = None, federation: FederationOption = None) -> None:
    """Give this site a new key; the coordinator accepts it by the old one's signature."""
    from client.cli.membership import rotate_key as command

    command.rotate_key(_one(home, federation))


@app.command()
def move(
    notice: Annotated[
        str, typer.Argument(metavar="LINE", help="As `wardround-coordinator move` printed it.")
    ],
    home: HomeOption = None,
    federation: FederationOption = None,
) -> None:
    """Follow the coordinator to another address, by the notice that its authority signed.

    The daemon asks for it by itself; this is for a site that was away while the old address ended.
    """
    from client.cli.membership import move as command

    command.move(_one(home, federation), notice)


@app.command()
def doctor(
    part: Annotated[
        Literal["site", "pacs"], typer.Argument(metavar="[pacs]", help="Check the PACS alone.")
    ] = "site",
    home: HomeOption = None,
    federation: FederationOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Check network, TLS, clock, disk, GPU, cohort and records; give each fault with its fix.

    With `pacs`, check what the hospital's PACS answers instead.
    """
    from client.cli import doctor as command

    raise typer.Exit(command.show_findings(_one(home, federation), part, as_json=json))


# Here, so that --help lists them in the order in which a site needs them.


@app.command()
def pull(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """Fetch studies from the PACS into the data folder; goes on where it stopped."""
    from client.cli.data import pull as command

    command.run(_chosen(home), as_json=json)


@app.command()
def index(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Prepare for this run as well.")
    ] = None,
    home: HomeOption = None,
    *,
    every: AllOption = False,
) -> None:
    """Read the images once, so that no round waits for it; say what cannot be used and why.

    With CONFIG.yaml, prepare what its run takes and count its patients.
    """
    from client.cli.data import index as command

    command.index(_chosen(home), config, every=every)


@app.command()
def report(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Compare with this run's needs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.html and report.json there.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Say what was found, what can be used, and why the rest cannot: HTML and JSON, kept here."""
    from client.cli import report as command

    command.report(_chosen(home), config, out)


@app.command()
def outcomes(
    source: Annotated[
        Path, typer.Argument(metavar="OUTCOMES.yaml", help="It says what to ask, and whom.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The table to write.")] = None,
    home: HomeOption = None,
) -> None:
    """Make the table of labels from a FHIR server or an OMOP database."""
    from client.cli.data import outcomes as command

    command.fetch(_chosen(home), source, out)


@app.command()
def measure(  # noqa: PLR0913 - one parameter an option
    plan: Annotated[
        Path | None, typer.Argument(metavar="[MEASURE.yaml]", help="Which masks and structures.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Measure what this model outlines in the studies."),
    ] = None,
    labels: LabelsOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write table and page there.")
    ] = None,
    home: HomeOption = None,
    *,
    reports: Annotated[
        bool, typer.Option("--sr", help="Write a DICOM SR for each study as well.")
    ] = False,
    send: Annotated[bool, typer.Option("--send", help="Send those to the PACS.")] = False,
    every: AllOption = False,
    json: JsonOption = False,
) -> None:
    """Measure the outlines that the table names: volumes, shapes, grey values, ejection fraction.

    MEASURE.yaml says which; with --bundle, a model's own outlines are measured instead.
    Writes the table with a column for each measurement, which runs can take; it stays here.
    """
    from client.cli.data import measure as command

    wishes = command.MeasureOptions(
        plan=plan,
        bundle=bundle,
        labels=labels,
        out=out,
        reports=reports or send,
        send=send,
        every=every,
        as_json=json,
    )
    raise typer.Exit(command.measure(_chosen(home), wishes))


@app.command()
def withdraw(
    patient: Annotated[
        str | None, typer.Argument(metavar="PATIENT", help="The PatientID, as in the images.")
    ] = None,
    home: HomeOption = None,
    *,
    yes: YesOption = False,
    listing: Annotated[bool, typer.Option("--list", help="List who was withdrawn.")] = False,
    pulled: Annotated[
        bool, typer.Option("--delete-pulled", help="Delete what `pull` fetched of them, too.")
    ] = False,
) -> None:
    """Take a patient out of index, cache and every later round, for good.

    What was trained before keeps what it learnt, and the ledger keeps what was spent.
    """
    from client.cli import withdraw as command

    if listing:
        command.list_withdrawn(_chosen(home))
    else:
        command.withdraw(_chosen(home), patient, yes=yes, delete_pulled=pulled)


@app.command()
def start(
    home: HomeOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Log JSON, for programs.")] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM: wait for the coordinator, train what was approved."""
    from client.node.daemon import run_daemon

    run_daemon(_chosen(home), json_logs=json)


@app.command()
def status(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """Say what the site does now, and what to type next; exit status 7 when it is not running."""
    from client.cli import status as command

    raise typer.Exit(command.show_status(_chosen(home), as_json=json))


@app.command()
def runs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Show this one in full.")
    ] = None,
    home: HomeOption = None,
    federation: FederationOption = None,
) -> None:
    """List the runs that were proposed: approved, refused, or waiting for an answer.

    With RUN, show that one in full.
    """
    from client.cli import runs as command

    command.show_runs(_one(home, federation), run)


@app.command()
def approve(
    run: RunArgument,
    home: HomeOption = None,
    federation: FederationOption = None,
    *,
    yes: YesOption = False,
) -> None:
    """Show what a run does here and what changed, and allow exactly that.

    RUN is one that `wardround-site runs` lists; CONFIG.yaml answers before a run asks.
    """
    from client.cli import approve as command

    command.decide(_one(home, federation), run, "approved", yes=yes)


@app.command()
def refuse(
    run: RunArgument,
    home: HomeOption = None,
    federation: FederationOption = None,
    *,
    yes: YesOption = False,
) -> None:
    """Refuse a run; the coordinator is told that, and no more.

    RUN is one that `wardround-site runs` lists; CONFIG.yaml answers before a run asks.
    """
    from client.cli import refuse as command

    command.refuse(_one(home, federation), run, yes=yes)


@app.command()
def budget(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """Show the privacy that was spent on the patients, by run, and what is left."""
    from client.cli import budget as command

    command.show_budget(_chosen(home), as_json=json)


@app.command()
def extensions(home: HomeOption = None, *, json: JsonOption = False) -> None:
    """List installed code of others that runs could use: its content, and whether it is allowed."""
    from client.cli import extensions as command

    command.show_extensions(_chosen(home), as_json=json)


@app.command("check-extension")
def check_extension(
    name: ExtensionArgument,
    arguments: ExtensionValuesOption = "{}",
    size: MadeUpSizeOption = "32,32",
    content: ContentOption = None,
) -> None:
    """Try an installed extension on made-up input, as runs do, and say what holds.

    NAME is a distribution, or one part of it such as example-nets/tiny. It runs the code; no
    image of a patient is read.
    """
    from client.cli import check_extension as command

    command.check_extension(name, arguments, size, content)


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

    chosen = _chosen(home)
    if lost:
        command.declare(chosen, epsilon, yes=yes)
    else:
        command.check(chosen)


@disclosures.callback(invoke_without_command=True)
def disclosures_by_default(
    context: typer.Context,
    home: HomeOption = None,
    federation: FederationOption = None,
    *,
    every: AllOption = False,
    json: JsonOption = False,
) -> None:
    """Show what has left this site: one line for each message."""
    if context.invoked_subcommand is None:
        list_disclosures(home, federation, every=every, json=json)
    else:
        check_nothing_before(context, home, federation, every, json)


@disclosures.command("list")
def list_disclosures(
    home: HomeOption = None,
    federation: FederationOption = None,
    *,
    every: AllOption = False,
    json: JsonOption = False,
) -> None:
    """List the messages that left: what, to whom, how much, and the privacy spent by then."""
    from client.cli import disclosures as command

    command.show_disclosures(_one(home, federation), everything=every, as_json=json)


@disclosures.command("verify")
def verify_disclosures(
    head: Annotated[
        str, typer.Argument(metavar="[HASH]", help="A last hash that was written down before.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another copy of disclosures.jsonl.")
    ] = None,
    home: HomeOption = None,
    federation: FederationOption = None,
) -> None:
    """Check that no line was changed, removed or put in; needs no network.

    With HASH, a last hash that was written down before, lines missing at the end show as well.
    """
    from client.cli import disclosures as command

    command.verify_disclosures(_one(home, federation), head, file)


BundleOption = Annotated[Path, typer.Option(metavar="FOLDER", help="The bundle with the model.")]
SendOption = Annotated[bool, typer.Option("--send", help="Send the results to the PACS.")]


@app.command()
def predict(
    study: Annotated[str, typer.Argument(help="A StudyInstanceUID, or a folder of DICOM files.")],
    bundle: BundleOption,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write results there.")] = None,
    home: HomeOption = None,
    *,
    send: SendOption = False,
    abstain: Annotated[
        bool, typer.Option(help="Give no answer where the calibration advises against one.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Score a study with a model, and write what it found as DICOM and FHIR; for research.

    STUDY is a StudyInstanceUID that `wardround-site index` has found, or a folder or a file.
    """
    from client.cli.models import predict as command

    wishes = command.PredictOptions(study=study, bundle=bundle, out=out, send=send, abstain=abstain)
    raise typer.Exit(command.predict(_chosen(home), wishes, as_json=json))


@app.command()
def listen(
    bundle: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The bundle with the model.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Take studies from this folder, not by C-STORE."),
    ] = None,
    home: HomeOption = None,
    *,
    worklist: Annotated[
        bool,
        typer.Option(
            "--worklist", help="Perform workitems of the PACS's worklist (UPS-RS), not by C-STORE."
        ),
    ] = False,
    send: SendOption = False,
    show: Annotated[
        bool, typer.Option("--list", help="Show what arrived and what became of it, and end.")
    ] = False,
) -> None:
    """Score studies as they arrive, by C-STORE, in a folder or by worklist, until Ctrl-C.

    A study is scored when the PACS has no more images of it than came, or, with no PACS to ask,
    when nothing came for pacs.listen.settle_seconds.
    """
    from client.cli.models import listen as command

    if show:
        raise typer.Exit(command.show(_chosen(home)))
    if bundle is None:
        message = "Give the model that scores: --bundle FOLDER. To see what arrived: --list"
        raise ConfigurationError(message)
    if worklist and folder is not None:
        message = "Give --folder or --worklist, not both: studies come one way."
        raise ConfigurationError(message)
    wishes = command.ListenOptions(bundle=bundle, folder=folder, send=send, worklist=worklist)
    raise typer.Exit(command.listen(_chosen(home), wishes))


@app.command()
def calibrate(
    bundle: BundleOption,
    coverage: Annotated[
        float, typer.Option(help="Part of a class's patients whose set shall hold the class.")
    ] = 0.9,
    unlike: Annotated[
        float, typer.Option(help="Part of usual studies that may be called unlike training.")
    ] = 0.05,
    home: HomeOption = None,
    *,
    json: JsonOption = False,
) -> None:
    """Fit a model's probabilities, sets and warnings on this site's own patients; they stay here.

    Patients are those whom the model was not trained on.
    """
    from client.cli.models import calibrate as command

    command.calibrate(_chosen(home), bundle, coverage=coverage, unlike=unlike, as_json=json)


@app.command()
def deidentify(  # noqa: PLR0913 - one parameter an option
    source: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="DICOM images.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Write what may leave there.")],
    dates: Annotated[
        Literal["shift", "remove"],
        typer.Option(help="Shift each patient's dates by days of their own, or remove them."),
    ] = "shift",
    home: HomeOption = None,
    *,
    keep_characteristics: Annotated[
        bool, typer.Option("--keep-characteristics", help="Keep sex, age, size and weight.")
    ] = False,
    pixels_checked: Annotated[
        bool, typer.Option("--pixels-checked", help="A person looked: no text in the pictures.")
    ] = False,
    blank_text: Annotated[
        bool, typer.Option("--blank-text", help="Blank text that is read in the pictures.")
    ] = False,
    deface: Annotated[
        bool, typer.Option("--deface", help="Take the face out of CT and MR volumes of the head.")
    ] = False,
    faces_checked: Annotated[
        bool, typer.Option("--faces-checked", help="A person looked at each head without its face.")
    ] = False,
    every: AllOption = False,
) -> None:
    """Write images as they may leave: names, numbers and texts gone, identifiers by a secret key.

    Images whose header or kind makes text in the picture likely are withheld until a person has
    looked. Reports, documents and waveforms are always withheld. --blank-text blanks what is read
    and shows it before and after, for that look. --deface takes the face out of volumes of the
    head, shows each before and after, and withholds everything else; with --faces-checked, once a
    person has looked, they are written.
    """
    from client.cli.data import deidentify as command
    from client.dicom.deidentify.deidentify import Dates, Profile

    profile = Profile(
        dates=Dates(dates),
        keep_characteristics=keep_characteristics,
        pixels_checked=pixels_checked,
        faces_checked=faces_checked,
    )
    wish = command.Wish(blank_text=blank_text, deface=deface)
    raise typer.Exit(command.run(_chosen(home), source, out, profile, every=every, wish=wish))


@app.command()
def pause(home: HomeOption = None) -> None:
    """Take no new requests, until `resume`."""
    from client.cli import pause as command

    command.pause(_chosen(home))


@app.command()
def resume(home: HomeOption = None) -> None:
    """Take requests again after `pause`."""
    from client.cli import resume as command

    command.resume(_chosen(home))


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
    from client.cli import service as command

    command.write_service(_chosen(home), user, out)


def main() -> None:
    """Run the command; whatever it writes is for its user alone."""
    os.umask(0o077)
    try:
        app()
    except KeyboardInterrupt:  # before a command had begun
        sys.exit(ExitCode.INTERRUPTED)
