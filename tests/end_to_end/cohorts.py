"""Small hospitals and configurations of a federation's tests: a table each, no images."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMES = ("east", "north", "west")


def write_tables(
    folder: Path, names: tuple[str, ...] = NAMES, patients: int = 60
) -> dict[str, Path]:
    """Write a labels.csv for each hospital; returns their folders by name."""
    return {name: _write(folder / name, name, patients) for name in names}


def _write(folder: Path, name: str, patients: int) -> Path:
    draw = random.Random(name)
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["PatientID", "age", "crp", "ill"])
        for number in range(patients):
            age, crp = draw.gauss(60, 12), draw.gauss(3, 1)
            ill = (age - 60) / 12 + (crp - 3) + draw.gauss(0, 0.5) > 0
            table.writerow([f"{name}-{number}", f"{age:.1f}", f"{crp:.2f}", int(ill)])
    return folder


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long a round takes, and how large an update is."""

    steps: int = 2
    hidden: tuple[int, ...] = ()
    minutes: float = 1.0  # that a round may take


def table_config(
    folder: Path,
    name: str = "run",
    *,
    rounds: int = 3,
    size: Size | None = None,
    more: Mapping[str, str] | None = None,
) -> Path:
    """Write a configuration of a network on two clinical numbers."""
    size = size or Size()
    lines = {
        "name": name,
        "task": "{kind: diagnosis, target: ill}",
        "cohort": "{table: {numbers: [{column: age, center: 60, scale: 12}, "
        "{column: crp, center: 3, scale: 1}]}}",
        "model": f"{{network: table, hidden: {list(size.hidden)}}}",
        "training": f"{{rounds: {rounds}, local_steps: {size.steps}, batch_patients: all, "
        "optimizer: sgd, learning_rate: 0.1}",
        "aggregation": "{smallest_quorum: 2}",
        "selection": "{rule: best, by: loss, every: 1}",
        "exchange": f"{{round_minutes: {size.minutes}, wait_hours: {size.minutes / 60}}}",
        "evaluation": "{bootstrap: 20}",
        "privacy": "none",
        **(more or {}),
    }
    path = folder / f"{name}.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return path


#: For `privacy`.
PRIVATE = (
    "{unit: patient, epsilon: 3.0, default_patients: 20, delta: 0.001, clipping: automatic, "
    "clip_norm: 1.0}"
)
