from __future__ import annotations

from dataclasses import replace

import torch
import yaml

from client.cohort.site_cohort import SiteCohort
from common.bundle.evidence import Subgroup
from common.config.run_config import RunConfig, Table
from simulations.comparison.compare import Comparison
from simulations.report.bundle_evidence import evidence_of
from tests.simulations.comparisons import PATIENTS, comparison, run_config

TABLE = (
    "{numbers: [{column: crp}, {column: age, center: 60.0, scale: 100.0}],"
    " categories: [{column: sex, values: [f, m]}]}"
)


def config_with_table(kind: str = "binary", unit: str = "patient") -> RunConfig:
    config = run_config(kind)
    table = Table.model_validate(yaml.safe_load(TABLE), strict=False)
    cohort = config.cohort.model_copy(update={"table": table, "confounder": "maker"})
    rules = config.evaluation.model_copy(update={"unit": unit, "smallest_cell": 5})
    return config.model_copy(update={"cohort": cohort, "evaluation": rules})


def described(found: Comparison) -> Comparison:
    """Give every patient an age, a sex and a scanner: 60 are f, 2 of each hospital very old."""
    return replace(found, cohorts=tuple(_described(c) for c in found.cohorts))


def _described(cohort: SiteCohort) -> SiteCohort:
    rows, makers = [], []
    for place in cohort.items.patient.tolist():
        years = 80.0 if place < 2 else 50.0
        female = place % 4 != 0
        rows.append([3.0, (years - 60) / 100, float(female), float(not female), 0, 0, 0])
        makers.append("one" if place % 2 else "two")
    return replace(
        cohort, items=replace(cohort.items, table=torch.tensor(rows)), confounder=tuple(makers)
    )


def by_value(groups: tuple[Subgroup, ...], column: str) -> dict[str, Subgroup]:
    return {group.value: group for group in groups if group.column == column}


def test_subgroups_are_of_sex_age_and_the_confounder() -> None:
    found = evidence_of(described(comparison(config_with_table())), "federated", 0)
    assert {group.column for group in found.subgroups} == {"age", "sex", "maker"}
    sexes = by_value(found.subgroups, "sex")
    counts = {name: group.patients or 0 for name, group in sexes.items()}
    tested = sum(site.test_patients or 0 for site in found.data.values())
    assert sum(counts.values()) == tested == PATIENTS  # half of two times as many
    assert counts["f"] > 2 * counts["m"]
    assert 0 <= sexes["f"].metrics["auroc"].value <= 1


def test_a_small_subgroup_is_not_told_nor_what_would_give_it_away() -> None:
    found = evidence_of(described(comparison(config_with_table())), "federated", 0)
    ages = by_value(found.subgroups, "age")
    # Four patients of 80 at most: that of the others would tell their number by subtraction.
    assert set(ages) == {"40 to 59", "75 and over"}
    assert [group.patients for group in ages.values()] == [None, None]
    assert all(group.metrics == {} for group in ages.values())


def test_images_of_one_patient_count_once() -> None:
    found = evidence_of(described(comparison(config_with_table(unit="image"))), "federated", 0)
    makers = by_value(found.subgroups, "maker")
    assert sum(group.patients or 0 for group in makers.values()) == PATIENTS


def test_a_small_hospitals_counts_are_left_out() -> None:
    config = config_with_table()
    rules = config.evaluation.model_copy(update={"smallest_cell": 25})
    found = evidence_of(
        described(comparison(config.model_copy(update={"evaluation": rules}))), "federated", 0
    )
    assert {site.test_patients for site in found.data.values()} == {None}


def test_every_task_has_evidence() -> None:
    for kind in ("multilabel", "survival", "fixed_horizon", "segmentation"):
        found = evidence_of(comparison(run_config(kind)), "federated", 0)
        assert found.data
        assert bool(found.calibration) == (kind in {"multilabel", "fixed_horizon"})
        assert list(found.survival) == ([6.0, 12.0, 24.0] if kind == "survival" else [])
        assert found.subgroups == ()
