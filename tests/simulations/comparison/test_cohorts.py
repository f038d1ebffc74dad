from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from client.cohort.site_cohort import SiteCohort
from client.cohort.split import Part
from client.site.cache import Cache
from common.config.run_config import RunConfig
from common.platform.errors import CohortError
from simulations.comparison.cohorts import check_parts, hospital_folders, load_hospitals
from simulations.comparison.not_used import write_not_used
from tests.client.dicom_files import config_of, write_labels
from tests.simulations.comparisons import cohort_of, run_config

TABLE = "{table: {numbers: [{column: age}]}}"


def table_config() -> RunConfig:
    return config_of(cohort=TABLE, network="table")


def given(name: str, part: Part) -> SiteCohort:
    cohort = cohort_of(run_config("binary"), name, 0)
    return replace(cohort, given=dict.fromkeys(cohort.items.pseudonyms, part))


def test_a_folder_without_labels_is_told_of_not_passed_over(tmp_path: Path) -> None:
    write_labels(tmp_path / "a", [{"PatientID": "P1", "ill": 1, "age": 5}])
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    said: list[str] = []
    folders = hospital_folders(table_config(), tmp_path, tmp_path / "out")
    found = load_hospitals(table_config(), folders, Cache(tmp_path / "c"), said.append)
    assert [c.name for c in found.cohorts] == ["a"]
    assert list(found.left_out) == ["b"]
    assert said[0] == "a: 1 patient"
    assert f"There is no {tmp_path / 'b' / 'labels.csv'}" in said[1]


def test_a_hospital_given_in_place_of_its_parent_is_named(tmp_path: Path) -> None:
    write_labels(tmp_path, [{"PatientID": "P1", "ill": 1, "age": 5}])
    with pytest.raises(CohortError, match="give its parent"):
        hospital_folders(table_config(), tmp_path, tmp_path / "out")


def test_every_line_that_is_not_used_is_in_the_list_with_its_value(tmp_path: Path) -> None:
    write_labels(
        tmp_path / "a",
        [{"PatientID": "P1", "ill": 1, "age": 5}, {"PatientID": "P2", "ill": "maybe", "age": 5}],
    )
    (tmp_path / "b").mkdir()
    folders = hospital_folders(table_config(), tmp_path, tmp_path / "out")
    found = load_hospitals(table_config(), folders, Cache(tmp_path / "c"), lambda _: None)
    assert write_not_used(tmp_path / "not-used.csv", found) == 2
    with (tmp_path / "not-used.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(r["hospital"], r["reason"], r["what"], r["detail"]) for r in lines] == [
        ("b", "HOSPITAL", "b", ""),
        ("a", "LABEL_UNUSABLE", "line 3", "column ill holds 'maybe', expected 0 or 1"),
    ]


def test_a_hospital_with_nobody_in_a_part_is_told_of() -> None:
    rules = run_config("binary").cohort
    said: list[str] = []
    check_parts((given("a", "train"), given("b", "test")), rules, (0, 1), said.append)
    assert said == [
        "b has no training patients with seed 0; seed 1",
        "a has no test patients with seed 0; seed 1",
    ]


def test_a_hospital_too_small_to_train_is_told_of() -> None:
    config = run_config("binary")
    said: list[str] = []
    cohorts = cohort_of(config, "a", 0), cohort_of(config, "b", 1, 8)
    check_parts(cohorts, config.cohort, (0,), said.append)
    assert said == [
        "b does not train: its training patients are 2, fewer than the 10 of cohort.smallest_cohort"
    ]


@pytest.mark.parametrize(("part", "lacking"), [("train", "test"), ("test", "training")])
def test_nothing_is_trained_where_nothing_could_be_learned_or_measured(
    part: Part, lacking: str
) -> None:
    rules = run_config("binary").cohort
    with pytest.raises(CohortError, match=f"No hospital has {lacking} patients with seed 0"):
        check_parts((given("a", part), given("b", part)), rules, (0,), lambda _: None)
