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
from common.config.changes import Changes, changes_of
from common.config.run_config import RunConfig, load_config
from common.extensions.pinning import doubts, pinned
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError, RunFailed
from common.tasks import task_of
from simulations.cli.compare import Request
from simulations.cli.progress import LiveProgress
from simulations.comparison.algorithms import algorithms_of
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
    changes: Mapping[str, object]  # of the file that make it, by key
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
    return _run(request, _combinations(request, varied), "sweep")


def run_algorithms(request: Request, names: str) -> tuple[SweepRow, ...]:
    """Compare algorithms on the same patients and splits; show and write one table.

    What an interrupted comparison had done is not done again.
    """
    if request.arms is not None or request.matrix or request.epsilon is not None:
        message = (
            "--algorithms says which arms are run, without privacy; remove --arms, --matrix and "
            "--epsilon."
        )
        raise ConfigurationError(message)
    plain = load_config(request.config, changes_of(request.changes))
    todo = []
    for one in algorithms_of(names, plain):
        given = with_set(one.changes, request.changes)
        arms = (one.arm,)
        todo.append(_combination(request, {"algorithm": one.name}, one.changes, given, arms))
    return _run(request, todo, "algorithms")


def _run(request: Request, todo: Sequence[_Combination], called: str) -> tuple[SweepRow, ...]:
    console = Console(stderr=not sys.stdout.isatty(), highlight=False, markup=False)
    if request.threads:
        torch.set_num_threads(request.threads)
    out = request.out or Path("runs") / f"{todo[0].config.name}-{called}"
    rows: list[SweepRow] = []
    read: _Read | None = None
    for number, one in enumerate(todo, 1):
        console.print(f"{number} of {len(todo)}: {shown(one.values)}", soft_wrap=True)
        tell = partial(_tell, console)
        for doubt in doubts(one.config):
            tell(doubt)
        read = _read(request, one.config, out, tell, read)
        try:
            rows.append(_row(request, one, out, read, console))
        except RunFailed as error:  # such as a step size at which weights leave all numbers
            tell(f"failed: {error}")
            rows.append(SweepRow(values=dict(one.values), folder=one.folder, arms={}))
        _write(out, rows, called)
    if not any(row.arms for row in rows):
        message = "Every combination failed; the lines above say why."
        raise RunFailed(message)
    best = chosen(rows)
    by_site = called == "algorithms"
    console.print(_table(todo[0].config, rows, best[0] if best else None, by_site=by_site))
    changes = {one.folder: one.changes for one in todo}
    for line in _ends(request, out / f"{called}.csv", best, changes):
        console.print(line, soft_wrap=True)
    return tuple(rows)


def _combinations(request: Request, varied: Sequence[str]) -> list[_Combination]:
    found = []
    for values in combinations(varied):
        given = with_set(values, request.changes)
        found.append(_combination(request, values, values, given))
    return found


def _combination(
    request: Request,
    values: Mapping[str, object],
    changes: Mapping[str, object],
    given: Changes,
    arms: tuple[Arm, ...] = (),
) -> _Combination:
    """Read a combination's configuration: all of them, before the first is trained."""
    config = load_config(request.config, given)
    config = pinned(with_epsilon(config, request.epsilon), simulated=True)
    return _Combination(
        values=values,
        changes=changes,
        config=config,
        arms=arms or chosen_arms(request.arms, config),
        folder=key_of("combination", config.fingerprint())[:12],
    )


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


def _table(
    config: RunConfig, rows: Sequence[SweepRow], best: SweepRow | None, *, by_site: bool
) -> Table:
    metric = task_of(config.task).metric
    title = f"{config.name}: loss on validation patients, and {metric} on test patients"
    if by_site:
        return _table_by_site(title, rows, best)
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
        table.add_row(*cells, _mark(row, best))
    return table


def _mark(row: SweepRow, best: SweepRow | None) -> str:
    if not row.arms:
        return "failed"
    return "<- chosen" if row is best else ""


def _sites_of(rows: Sequence[SweepRow]) -> list[str]:
    """Return the hospitals that are measured, as a row says that did not fail."""
    return next((list(found.sites) for row in rows for found in row.arms.values()), [])


def _table_by_site(title: str, rows: Sequence[SweepRow], best: SweepRow | None) -> Table:
    """Return a row an algorithm: what it is worth at each hospital, and their mean."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("algorithm", no_wrap=True)
    table.add_column("model")
    sites = _sites_of(rows)
    for column in ("validation", "mean", *sites):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        name = str(row.values["algorithm"])
        if not row.arms:
            table.add_row(name, *["-"] * (3 + len(sites)), _mark(row, best))
        for arm, found in row.arms.items():  # one
            spread = f"±{found.test_std:.3f}" if found.test_std else ""
            table.add_row(
                name,
                "own" if arm == "personalised" else "shared",
                _number(found.validation_loss, 4),
                _number(found.test) + spread,
                *(_number(value) for value in found.sites.values()),
                _mark(row, best),
            )
    return table


def _ends(
    request: Request,
    table: Path,
    best: tuple[SweepRow, str] | None,
    changes: Mapping[str, Mapping[str, object]],
) -> list[str]:
    lines = [f"Table: {table}   Each run: {table.parent}/FOLDER/results.json"]
    if best is None:
        why = (
            "None is chosen: there are no validation patients, or what was varied changes whose "
            "loss it is (task, cohort, evaluation). Test patients choose nothing."
        )
        return [*lines, why]
    row, arm = best
    words = [str(request.config)]
    made_by = changes[row.folder].items()
    for one in (*(f"{key}={_short(value)}" for key, value in made_by), *request.changes):
        words += ["--set", one]
    for name in ("data", "arms", "epsilon"):
        given = getattr(request, name)
        words += [] if given is None else [f"--{name}", str(given)]
    return [
        *lines,
        f"Chosen by the smallest loss on validation patients ({arm}). Its report:",
        f"  wardround-simulate compare {shlex.join(words)}",
    ]


def _write(out: Path, rows: Sequence[SweepRow], called: str) -> None:
    """Write the table as CSV and JSON, as far as it is."""
    text = json.dumps([asdict(row) for row in rows], indent=1, allow_nan=False)
    replace_durably(out / f"{called}.json", (text + "\n").encode())
    lines = io.StringIO()
    writer = csv.writer(lines)
    keys = list(rows[0].values)
    measured = ("arm", "validation_loss", "test", "test_std", "epsilon", "folder")
    sites = _sites_of(rows) if called == "algorithms" else []
    writer.writerow([*keys, *measured, *sites])
    for row in rows:
        if not row.arms:
            said = [*map(_short, row.values.values()), "failed", "", "", "", "", row.folder]
            writer.writerow([*said, *[""] * len(sites)])
        for arm, found in row.arms.items():
            numbers = (found.validation_loss, found.test, found.test_std, found.epsilon)
            told = ["" if value is None else value for value in numbers]
            known = [found.sites.get(site) for site in sites]
            each = ["" if value is None else value for value in known]
            writer.writerow([*map(_short, row.values.values()), arm, *told, row.folder, *each])
    replace_durably(out / f"{called}.csv", lines.getvalue().encode())
