"""`sweep`, step by step."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from client.site.cache import Cache, key_of
from common.config.run_config import RunConfig, load_config
from common.extensions.pinning import doubts, pinned
from common.platform.durable_files import replace_durably
from common.tasks import task_of
from simulations.cli.compare import Request
from simulations.cli.progress import LiveProgress
from simulations.comparison.arm_configurations import with_epsilon
from simulations.comparison.arms import Arm, chosen_arms
from simulations.comparison.cohorts import (
    Hospitals,
    check_parts,
    hospital_folders,
    load_hospitals,
    what_is_read,
)
from simulations.comparison.compare import ComparisonPlan, compare
from simulations.comparison.sweep import (
    SweepRow,
    chosen,
    combinations,
    keep_row,
    kept_row,
    row_of,
    with_set,
)
from simulations.comparison.unfinished import digest_of_patients, key_of_comparison
from simulations.engines.engine_choice import Engine
from simulations.report.results import write_results


@dataclass(frozen=True, kw_only=True)
class _Combination:
    values: Mapping[str, object]
    config: RunConfig
    arms: tuple[Arm, ...]
    folder: str  # below the sweep's


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Hospitals that were read, for all combinations that read the same."""

    of: tuple[object, ...]  # what decides how they are read
    hospitals: Hospitals
    digest: str


def run_sweep(request: Request, varied: Sequence[str]) -> tuple[SweepRow, ...]:
    """Compare with every combination of values; show and write one table.

    What an interrupted sweep had done is not done again.
    """
    console = Console(stderr=not sys.stdout.isatty(), highlight=False, markup=False)
    todo = _combinations(request, varied)  # all of them are read before the first is trained
    if request.threads:
        torch.set_num_threads(request.threads)
    out = request.out or Path("runs") / f"{todo[0].config.name}-sweep"
    rows: list[SweepRow] = []
    read: _Read | None = None
    for number, one in enumerate(todo, 1):
        console.print(f"{number} of {len(todo)}: {shown(one.values)}", soft_wrap=True)
        tell = partial(_tell, console)
        for doubt in doubts(one.config):
            tell(doubt)
        read = _read(request, one.config, out, tell, read)
        rows.append(_row(request, one, out, read, console))
        _write(out, rows)
    best = chosen(rows)
    console.print(_table(todo[0].config, rows, best[0] if best else None))
    for line in _ends(request, out, best):
        console.print(line, soft_wrap=True)
    return tuple(rows)


def _combinations(request: Request, varied: Sequence[str]) -> list[_Combination]:
    found = []
    for values in combinations(varied):
        config = load_config(request.config, with_set(values, request.changes))
        config = pinned(with_epsilon(config, request.epsilon), simulated=True)
        arms = chosen_arms(request.arms, config)
        folder = key_of("combination", config.fingerprint())[:12]
        found.append(_Combination(values=values, config=config, arms=arms, folder=folder))
    return found


def _tell(console: Console, line: str) -> None:
    console.print(f"  {line}", soft_wrap=True)


def _read(
    request: Request,
    config: RunConfig,
    out: Path,
    tell: Callable[[str], None],
    before: _Read | None,
) -> _Read:
    """Return a combination's hospitals: those of the one before where they are the same."""
    folders = hospital_folders(config, request.data, out)
    of = (folders, what_is_read(config))
    if before is not None and before.of == of:
        return before
    hospitals = load_hospitals(config, folders, Cache(out / "cache"), tell)
    return _Read(of=of, hospitals=hospitals, digest=digest_of_patients(hospitals.cohorts))


def _row(request: Request, one: _Combination, out: Path, read: _Read, console: Console) -> SweepRow:
    """Return a combination's row, from its folder where it was done before."""
    config, folder, cohorts = one.config, out / one.folder, read.hospitals.cohorts
    arms, seeds = one.arms, range(request.seeds)
    key = key_of(key_of_comparison(config, read.digest), list(arms), request.seeds)
    done = kept_row(folder / "row.json", key)
    if done is not None:
        _tell(console, "done before")
        return done
    check_parts(cohorts, config.cohort, seeds, partial(_tell, console))
    replace_durably(folder / "config.yaml", config.to_yaml().encode())
    plan = ComparisonPlan(
        arms=arms,
        seeds=seeds,
        folder=folder,
        engine=Engine(kind=request.engine, workers=request.workers),
        bare_loop=False,
        patients=read.digest,
    )
    with LiveProgress(console, config, arms, request.seeds) as live:
        found = compare(config, cohorts, plan, live.progress)
    write_results(folder / "results.json", found)
    row = row_of(found, one.values, one.folder)
    keep_row(folder / "row.json", key, row)
    return row


# --- the table ---------------------------------------------------------------------------


def shown(values: Mapping[str, object]) -> str:
    """Return values as they are typed."""
    return "  ".join(f"{key}={_short(value)}" for key, value in values.items())


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(config: RunConfig, rows: Sequence[SweepRow], best: SweepRow | None) -> Table:
    metric = task_of(config.task).metric
    title = f"{config.name}: loss on validation patients, and {metric} on test patients"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for key in rows[0].values:
        table.add_column(key, no_wrap=True)
    arms = list(dict.fromkeys(arm for row in rows for arm in row.arms))
    for arm in arms:
        table.add_column(f"{arm}\nvalidation", justify="right")
        table.add_column(f"{arm}\ntest", justify="right")
    table.add_column("")
    for row in rows:
        cells = [_short(value) for value in row.values.values()]
        for arm in arms:
            found = row.arms.get(arm)
            spread = f"±{found.test_std:.3f}" if found and found.test_std else ""
            cells.append(_number(found.validation_loss if found else None, 4))
            cells.append(_number(found.test if found else None) + spread)
        table.add_row(*cells, "<- chosen" if row is best else "")
    return table


def _ends(request: Request, out: Path, best: tuple[SweepRow, str] | None) -> list[str]:
    lines = [f"Table: {out / 'sweep.csv'}   Each run: {out}/FOLDER/results.json"]
    if best is None:
        why = (
            "None is chosen: there are no validation patients, or what was varied changes whose "
            "loss it is (task, cohort, evaluation). Test patients choose nothing."
        )
        return [*lines, why]
    row, arm = best
    words = [str(request.config)]
    for one in (*(f"{key}={_short(value)}" for key, value in row.values.items()), *request.changes):
        words += ["--set", one]
    for name in ("data", "arms", "epsilon"):
        given = getattr(request, name)
        words += [] if given is None else [f"--{name}", str(given)]
    return [
        *lines,
        f"Chosen by the smallest loss on validation patients ({arm}). Its report:",
        f"  wardround-simulate compare {shlex.join(words)}",
    ]


def _write(out: Path, rows: Sequence[SweepRow]) -> None:
    """Write sweep.csv and sweep.json, as far as the sweep is."""
    text = json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False)
    replace_durably(out / "sweep.json", (text + "\n").encode())
    lines = io.StringIO()
    writer = csv.writer(lines)
    keys = list(rows[0].values)
    measured = ("arm", "validation_loss", "test", "test_std", "epsilon", "folder")
    writer.writerow([*keys, *measured])
    for row in rows:
        for arm, found in row.arms.items():
            numbers = (found.validation_loss, found.test, found.test_std, found.epsilon)
            told = ["" if value is None else value for value in numbers]
            writer.writerow([*map(_short, row.values.values()), arm, *told, row.folder])
    replace_durably(out / "sweep.csv", lines.getvalue().encode())
