"""`compare`, step by step."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from client.site.cache import Cache
from common.config.run_config import RunConfig, load_config, parse_config
from common.platform.durable import replace_durably
from common.platform.errors import ConfigurationError
from simulations.cli.progress import LiveProgress, table_of
from simulations.comparison.arm_configurations import private
from simulations.comparison.arms import ARMS, Arm
from simulations.comparison.cohorts import check_parts, hospital_folders, load_hospitals
from simulations.comparison.compare import Comparison, ComparisonPlan, compare
from simulations.comparison.not_used import write_not_used
from simulations.engines.engines import Engine
from simulations.report.results import write_results


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


def run_comparison(request: Request) -> Comparison:
    """Compare, show progress, write results, report and bundle."""
    console = Console(stderr=not sys.stdout.isatty(), highlight=False, markup=False)
    config = with_epsilon(load_config(request.config), request.epsilon)
    arms = chosen_arms(request.arms, config)
    if request.threads:
        torch.set_num_threads(request.threads)
    out = request.out or Path("runs") / config.name
    cache = Cache(out / "cache")
    folders = hospital_folders(config, request.data, out)
    replace_durably(out / "config.yaml", config.to_yaml().encode())
    _forget_results(out)

    def tell(line: str) -> None:
        console.print(f"  {line}", soft_wrap=True)  # a path stays whole

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
    write_results(out / "results.json", found)
    write_outputs(out, found)
    console.print(table_of(found))
    # Imported here: pictures take a while to load, and training begins without them.
    from simulations.report.tables import constants

    for line in constants(found):
        console.print(line, soft_wrap=True)
    ends = f"Report: {out / 'report.html'}   Numbers: {out / 'results.json'}"
    console.print(ends, soft_wrap=True)
    return found


def _forget_results(out: Path) -> None:
    """Remove what an earlier comparison found: config.yaml is no longer its configuration."""
    for name in ("results.json", "report.html"):
        (out / name).unlink(missing_ok=True)
    for picture in (out / "pictures").glob("*.png"):
        picture.unlink()


def write_outputs(out: Path, found: Comparison) -> None:
    """Write the report, its pictures and the bundle."""
    from simulations.report.page import write_report

    write_report(out, found)


def with_epsilon(config: RunConfig, epsilon: float | None) -> RunConfig:
    """Return the run with another epsilon; ConfigurationError where it can have none such."""
    if epsilon is None:
        return config
    if not epsilon > 0:
        message = f"--epsilon is {epsilon}, expected a number above 0."
        raise ConfigurationError(message)
    # Nobody agreed on numbers of patients, so the simulated sites declare theirs.
    declared = {"unit": "patient", "default_patients": "declared"}
    privacy = declared if config.privacy == "none" else config.privacy.model_dump(mode="json")
    content = {**config.model_dump(mode="json"), "privacy": {**privacy, "epsilon": epsilon}}
    return parse_config(json.dumps(content), source=f"run {config.name} with --epsilon {epsilon}")


def chosen_arms(text: str | None, config: RunConfig) -> tuple[Arm, ...]:
    """Return the arms to run, in the order that lets later ones start from earlier ones."""
    if text is None:
        return tuple(a for a in ARMS if a != "federated_dp" or config.privacy != "none")
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in wanted if name not in ARMS]
    if unknown or not wanted:
        found = ", ".join(unknown) or "nothing"
        message = f"--arms has {found}; expected some of {','.join(ARMS)}."
        raise ConfigurationError(message)
    if "federated_dp" in wanted:
        private(config)  # says at once when there is no privacy section
    return tuple(arm for arm in ARMS if arm in wanted)
