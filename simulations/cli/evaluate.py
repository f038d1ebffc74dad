"""`evaluate`, step by step."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from client.inference.trained_model import TrainedModel
from client.site.cache import Cache
from common.metrics.intervals import Estimate
from common.platform.durable_files import replace_durably
from common.tasks import task_of
from simulations.comparison.cohorts import hospital_folders, load_hospitals
from simulations.comparison.model_measured import Part, check_part, measured, opened, scored
from simulations.comparison.not_used import write_not_used
from simulations.report.results import confusion_json

Measured = Mapping[str, Mapping[str, Estimate]]


def run_evaluation(bundle: Path, data: Path, part: Part, out: Path | None) -> Measured:
    """Measure a bundle on hospitals' patients; show the headline and write every metric."""
    console = Console(stderr=not sys.stdout.isatty(), highlight=False, markup=False)
    model = opened(bundle)
    check_part(model, part)
    out = out or Path("runs") / f"{model.config.name}-evaluated"

    def tell(line: str) -> None:
        console.print(f"  {line}", soft_wrap=True)

    alone = (data / "labels.csv").is_file()
    folders = (data,) if alone else hospital_folders(model.config, data, out)
    hospitals = load_hospitals(model.config, folders, Cache(out / "cache"), tell)
    if write_not_used(out / "not-used.csv", hospitals):
        tell(f"Each file, row and patient that is not used: {out / 'not-used.csv'}")
    scores = scored(model, hospitals.cohorts, part)
    found = measured(model, scores)
    confusion = {n: c for n, s in scores.items() if (c := confusion_json(model.config, s))}
    content = {
        "bundle": str(bundle),
        "name": model.config.name,
        "configuration": model.name.fingerprint,
        "weights": model.name.weights,
        "part": part,
        "metric": task_of(model.config.task).metric,
        "sites": {s: {n: e.to_json() for n, e in told.items()} for s, told in found.items()},
        "left_out": dict(hospitals.left_out),
        **({"confusion": confusion} if confusion else {}),
    }
    text = json.dumps(content, indent=2, allow_nan=False)
    replace_durably(out / "evaluation.json", (text + "\n").encode())
    console.print(_table(model, found, part))
    console.print(f"Every metric: {out / 'evaluation.json'}", soft_wrap=True)
    return found


def _table(model: TrainedModel, found: Measured, part: Part) -> Table:
    metric = task_of(model.config.task).metric
    whom = "patients of the run's test part" if part == "test" else "all patients"
    table = Table(
        title=f"{model.config.name}: {metric}, {whom}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for heading in ("", metric, "95 % interval", "patients"):
        table.add_column(heading, no_wrap=True)
    for site, metrics in found.items():
        one = metrics[metric]
        between = f"{_number(one.low)} to {_number(one.high)}"
        table.add_row(site, _number(one.value), between, str(one.patients))
    return table


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
