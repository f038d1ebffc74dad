"""`wardround-simulate`: many hospitals on one machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.platform.command_line import (
    ContentOption,
    ExtensionArgument,
    ExtensionValuesOption,
    MadeUpSizeOption,
)
from common.platform.errors import ExitCode, WardroundError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Simulate hospitals that train together: the same rounds as between real ones.",
    epilog=(
        "Exit status: 0 done, 1 the run failed, 2 wrong option or configuration, 3 data cannot "
        "be used, 4 privacy refused, 5 saved state is damaged, 130 interrupted."
    ),
)


Threads = Annotated[
    int,
    typer.Option(
        min=0,
        help="Threads for the networks. 0 takes what the machine has: then another machine "
        "gives other last digits, and results.json says how many they were.",
    ),
]


ConfigArgument = Annotated[Path, typer.Argument(help="YAML file of the run.", metavar="CONFIG")]
DataOption = Annotated[
    Path | None,
    typer.Option(help="Folder with one folder for each hospital (DICOM files and labels.csv)."),
]
SeedsOption = Annotated[int, typer.Option(min=1, max=100, help="Repeat with seeds 0 to N-1.")]
EpsilonOption = Annotated[
    float | None, typer.Option(help="Another epsilon for the arm federated_dp.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that the hospitals of a round are shared among."),
]
EngineOption = Annotated[
    Literal["builtin", "ray"],
    typer.Option(help="ray: Flower's Ray engine, for clusters (RAY_ADDRESS)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value than the file's, e.g. training.rounds=5; again for each.",
    ),
]


@app.callback()
def simulate() -> None:
    """Simulate hospitals that train together: the same rounds as between real ones."""


@app.command()
def compare(  # noqa: PLR0913 - one parameter an option
    config: ConfigArgument,
    *,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; by default runs/NAME.")
    ] = None,
    seeds: SeedsOption = 1,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Some of local, pooled, federated, personalised, federated_dp; and leave_one_out, "
            "which measures each hospital with a model of the others."
        ),
    ] = None,
    algorithms: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Algorithms side by side in one table: fedavg, fedprox, scaffold, fedbn, fedrep, "
            "ditto; instead of arms.",
        ),
    ] = None,
    epsilon: EpsilonOption = None,
    changes: SetOption = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Measure each hospital's own model at every hospital.")
    ] = False,
    threads: Threads = 0,
    workers: WorkersOption = None,
    engine: EngineOption = "builtin",
) -> None:
    """Train alone, pooled, federated, personalised and private, and say what each is worth.

    CONFIG is the YAML file of a run, such as configs/simulations/demo.yaml.
    """
    from simulations.cli.compare import Request, run_comparison

    request = Request(
        config=config,
        data=data,
        out=out,
        seeds=seeds,
        arms=arms,
        epsilon=epsilon,
        threads=threads or None,
        workers=workers,
        engine=engine,
        changes=tuple(changes or ()),
        matrix=matrix,
    )
    with _interruptible():
        if algorithms is None:
            run_comparison(request)
            return
        from simulations.cli.sweep import run_algorithms

        run_algorithms(request, algorithms)


@app.command()
def sweep(  # noqa: PLR0913 - one parameter an option
    config: ConfigArgument,
    *,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,...",
            help="Values to try, e.g. aggregation.rule=mean,median; again for each key.",
        ),
    ] = None,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; by default runs/NAME-sweep.")
    ] = None,
    seeds: SeedsOption = 1,
    arms: Annotated[
        str, typer.Option(help="Some of local, pooled, federated, personalised, federated_dp.")
    ] = "federated",
    epsilon: EpsilonOption = None,
    changes: SetOption = None,
    threads: Threads = 0,
    workers: WorkersOption = None,
    engine: EngineOption = "builtin",
) -> None:
    """Try every combination of some values, and show one table.

    The combination with the smallest loss on validation patients is marked; test patients choose
    nothing.
    """
    from simulations.cli.compare import Request
    from simulations.cli.sweep import run_sweep

    with _interruptible():
        run_sweep(
            Request(
                config=config,
                data=data,
                out=out,
                seeds=seeds,
                arms=arms,
                epsilon=epsilon,
                threads=threads or None,
                workers=workers,
                engine=engine,
                changes=tuple(changes or ()),
            ),
            vary or [],
        )


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a model's bundle.")],
    data: Annotated[
        Path, typer.Option(help="A hospital's folder, or one with a folder for each hospital.")
    ],
    part: Annotated[
        Literal["test", "all"],
        typer.Option(
            help="test: patients whom the run kept for testing; all: of hospitals that took no "
            "part in it. Nothing tells them apart but you."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; by default runs/NAME-evaluated.")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Measure a trained model on hospitals' patients.

    Of a hospital that took part in the training, --part all would count patients it was trained on.
    """
    import torch

    from simulations.cli.evaluate import run_evaluation

    if threads:
        torch.set_num_threads(threads)
    with _interruptible():
        run_evaluation(bundle, data, part, out)


@app.command()
def measure(
    plan: Annotated[
        Path | None, typer.Argument(metavar="[MEASURE.yaml]", help="Which masks and structures.")
    ] = None,
    *,
    data: Annotated[
        Path, typer.Option(help="A hospital's folder, or one with a folder for each hospital.")
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Measure what this model outlines in the studies."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; by default runs/NAME-measured.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Name every single one.")] = False,
) -> None:
    """Measure the outlines that hospitals' tables name: volumes, shapes, grey values.

    MEASURE.yaml says which; with --bundle, a model's own outlines are measured instead.
    Writes each hospital's table with a column for each measurement, which runs can take.
    """
    from simulations.cli.measure import run_measuring

    with _interruptible():
        run_measuring(plan, bundle, data, out, every=every)


@app.command()
def propose(
    config: ConfigArgument,
    data: Annotated[Path, typer.Option(help="Folder with one folder for each hospital.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the YAML there, not to the screen.")
    ] = None,
    memory: Annotated[
        float, typer.Option(min=0.5, metavar="GB", help="Memory of the device that trains.")
    ] = 8.0,
) -> None:
    """Plan spacing, patch and batch of a run on patches from the counts hospitals would tell.

    Prints or writes a YAML to look at; nothing is trained.
    """
    import tempfile

    from simulations.cli.propose import propose as planned

    def tell(line: str) -> None:
        typer.echo(f"  {line}", err=True)

    with _interruptible(), tempfile.TemporaryDirectory() as work:
        found = planned(config, data, Path(work), memory, tell)
        if out is None:
            typer.echo(found.text, nl=False)
        else:
            found.written(out)
            typer.echo("\n".join((*found.remarks, f"Look at {out}.")))


@contextmanager
def _interruptible() -> Iterator[None]:
    """End a command that was interrupted, or whose folder cannot be written, with one line."""
    try:
        yield
    except KeyboardInterrupt:
        # Here, because the command-line library would turn it into exit status 1.
        typer.echo("Interrupted. Give the same command again to go on where it stopped.", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except OSError as error:
        typer.echo(f"Error: {error.strerror}: {error.filename}. Give --out a folder.", err=True)
        raise typer.Exit(ExitCode.RUN_FAILED) from error


@app.command("check-extension")
def check_extension(
    name: ExtensionArgument,
    arguments: ExtensionValuesOption = "{}",
    size: MadeUpSizeOption = "32,32",
    content: ContentOption = None,
) -> None:
    """Try an installed extension on made-up input, as runs do, and say what holds.

    NAME is a distribution, or one part of it such as example-nets/tiny.
    """
    from client.privacy.extension_check import told

    for line in told(name, arguments, size, content):
        typer.echo(line)


def main() -> None:
    """Run the command; every fault that a person can mend is one message and an exit status."""
    try:
        app(standalone_mode=True)
    except WardroundError as error:
        _fail(error)


def _fail(error: WardroundError) -> None:
    typer.echo(f"Error: {error}", err=True)
    sys.exit(error.exit_code)
