"""The matrix of hospitals: its diagonal is arm local, and a model is its own hospital's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.platform.errors import ConfigurationError
from simulations.comparison.compare import ComparisonPlan, ComparisonProgress, compare
from simulations.comparison.site_matrix import check_matrix, site_matrix
from simulations.report.html_report import page_of
from simulations.report.results import results
from simulations.report.seed_intervals import intervals
from tests.simulations.golden import cohorts, config_of, training


def test_the_diagonal_is_each_hospitals_own_result(tmp_path: Path) -> None:
    config = config_of(training=training(rounds=2))
    plan = ComparisonPlan(arms=("local",), seeds=(0, 1), folder=tmp_path, bare_loop=False)
    found = compare(config, cohorts(config)[:3], plan, ComparisonProgress())
    matrix = site_matrix(found)
    told = results(found)["arms"]
    assert isinstance(told, dict)
    names = [cohort.name for cohort in found.cohorts]
    assert list(matrix) == names
    own = {name: matrix[name][name] for name in names}
    assert own == pytest.approx(told["local"]["per_site"], abs=1e-6)  # type: ignore[call-overload, index]
    assert all(list(row) == names for row in matrix.values())
    # A column is of one hospital's patients: labels that are turned there turn its numbers alone.
    turned = found.cohorts[1]
    items = replace(turned.items, target=1 - torch.as_tensor(turned.items.target))
    other = replace(
        found, cohorts=(found.cohorts[0], replace(turned, items=items), *found.cohorts[2:])
    )
    for name, row in site_matrix(other).items():
        assert row[turned.name] == pytest.approx(1 - (matrix[name][turned.name] or 0), abs=1e-6)
        assert {n: v for n, v in row.items() if n != turned.name} == {
            n: v for n, v in matrix[name].items() if n != turned.name
        }
    shown = replace(found, matrix=matrix)
    page = page_of(shown, {}, intervals(shown), [], has_bundle=False)
    assert f"measured at {names[0]}" in page
    assert f"{matrix[names[0]][names[1]]:.3f}" in page


def test_a_matrix_needs_the_models_that_it_measures() -> None:
    with pytest.raises(ConfigurationError, match="add local to federated"):
        check_matrix(("federated",))
