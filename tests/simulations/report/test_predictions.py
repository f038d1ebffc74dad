"""predictions.csv: each test patient once an arm, beside what labels.csv says."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from simulations.comparison.compare import ComparisonPlan, ComparisonProgress, compare
from simulations.report.predictions import write_predictions
from simulations.report.results import write_results
from tests.simulations.golden import cohorts, config_of, training

SHORT = training(rounds=2, local_steps=1)


def lines_of(folder: Path, kind: str, **sections: str) -> list[dict[str, str]]:
    config = config_of(kind, training=SHORT, **sections)
    arms = ("local", "federated")
    plan = ComparisonPlan(arms=arms, seeds=(0, 1), folder=folder, bare_loop=False)
    found = compare(config, cohorts(config), plan, ComparisonProgress())
    write_predictions(folder / "predictions.csv", found)
    write_results(folder / "results.json", found)
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_figures_of_a_comparison_follow_from_its_predictions(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, "binary")
    told = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["arms"]["federated"]
    names = [name for name in lines[0] if name.startswith(("probability of ", "true "))]
    assert len(names) == 2
    for seed, headline in enumerate(told["per_seed"]):
        rows = [r for r in lines if (r["arm"], r["seed"]) == ("federated", str(seed))]
        scores, truth = (np.array([float(row[name]) for row in rows]) for name in names)
        assert roc_auc_score(truth, scores) == pytest.approx(headline, abs=1e-6)
        assert len({(r["hospital"], r["patient"]) for r in rows}) == len(rows)
    assert [point["round"] for point in told["rounds"]["seed 1"]] == [1, 2]
    assert all(point["validation"] > 0 for point in told["rounds"]["seed 1"])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("multilabel", "probability of "),
        ("survival", "survival at "),
        ("segmentation", "dice of "),
        ("number", "predicted "),
        ("fixed_horizon", "probability of "),
        ("multiclass", "true "),
    ],
)
def test_every_form_of_answer_has_columns_of_its_own(
    tmp_path: Path, kind: str, expected: str
) -> None:
    lines = lines_of(tmp_path, kind)
    values = [value for row in lines for name, value in row.items() if name.startswith(expected)]
    assert values
    assert all(value == "" or np.isfinite(float(value)) for value in values)
    assert any(values)


def test_images_of_a_patient_are_rows_of_their_own(tmp_path: Path) -> None:
    lines = lines_of(
        tmp_path, "binary", evaluation="{bootstrap: 10, smallest_cell: 1, unit: image}"
    )
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for line in lines:
        key = tuple(line[name] for name in ("arm", "seed", "hospital", "patient"))
        rows[key].append(int(line["row"]))
    assert all(held == list(range(1, len(held) + 1)) for held in rows.values())
    assert max(map(len, rows.values())) > 1
