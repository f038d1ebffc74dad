"""`compare`, step by step."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from client.site.cache import Cache
from common.config.changes import changes_of
from common.config.run_config import load_config
from common.extensions.pinning import doubts, pinned
from simulations.cli.progress import LiveProgress, table_of
from simulations.comparison.arm_configurations import with_epsilon
from simulations.comparison.arms import chosen_arms
from simulations.comparison.cohorts import check_parts, hospital_folders, load_hospitals
from simulations.comparison.compare import Comparison, ComparisonPlan, compare
from simulations.comparison.not_used import write_not_used
from simulations.comparison.site_matrix import check_matrix, site_matrix
from simulations.engines.engine_choice import Engine
from simulations.report.output import begin_folder, write_found


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command's options as typed."""

    config: Path
    data: Path | None
    out: Path | None
    seeds: int
    arms: str | None
    epsilon: float | None
    threads: int | None
    workers: int | None = None
    engine: Literal["builtin", "ray"] = "builtin"
    changes: tuple[str, ...] = ()  # KEY=VALUE, each
    matrix: bool = False  # measure each hospital's own model at every hospital


def run_comparison(request: Request) -> Comparison:
    """Compare, show progress, write results, report and bundle."""
    console = Console(stderr=not sys.stdout.isatty(), highlight=False, markup=False)
    config = load_config(request.config, changes_of(request.changes))
    config = with_epsilon(config, request.epsilon)
    config = pinned(config, simulated=True)
    arms = chosen_arms(request.arms, config)
    if request.matrix:
        check_matrix(arms)
    if request.threads:
        torch.set_num_threads(request.threads)
    out = request.out or Path("runs") / config.name
    cache = Cache(out / "cache")
    folders = hospital_folders(config, request.data, out)
    begin_folder(out, config)

    def tell(line: str) -> None:
        console.print(f"  {line}", soft_wrap=True)  # a path stays whole

    for doubt in doubts(config):
        tell(doubt)
    hospitals = load_hospitals(config, folders, cache, tell)
    if write_not_used(out / "not-used.csv", hospitals):
        tell(f"Each file, row and patient that is not used: {out / 'not-used.csv'}")
    check_parts(hospitals.cohorts, config.cohort, range(request.seeds), tell)
    with LiveProgress(console, config, arms, request.seeds) as live:
        plan = ComparisonPlan(
            arms=arms,
            seeds=range(request.seeds),
            folder=out,
            engine=Engine(kind=request.engine, workers=request.workers),
        )
        found = compare(config, hospitals.cohorts, plan, live.progress)
    found = replace(found, left_out=hospitals.left_out)
    if request.matrix:
        found = replace(found, matrix=site_matrix(found))
    lines = write_found(out, found)
    console.print(table_of(found))
    for line in lines:
        console.print(line, soft_wrap=True)
    ends = f"Report: {out / 'report.html'}   Numbers: {out / 'results.json'}"
    console.print(ends, soft_wrap=True)
    return found
