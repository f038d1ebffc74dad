from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort.split import Part, SplitKey, part_named, part_of, simulated_key, site_key
from common.config.run_config import Split, parse_config
from common.platform.errors import ConfigurationError
from simulations.comparison.arm_configurations import with_epsilon

NAMES = st.sets(st.text(min_size=1, max_size=6), max_size=40)
KEYS = st.binary(min_size=32, max_size=32).map(lambda secret: SplitKey(secret=secret))
PARTS = st.sampled_from(["train", "validation", "test", None])
KEY = simulated_key(0)


def parts_of(patients: set[str], rules: Split, key: SplitKey, fold: int = 0) -> dict[str, Part]:
    return {patient: part_of(patient, None, rules, key, fold) for patient in patients}


@given(patients=NAMES, key=KEYS, test=st.floats(0.1, 0.5), validation=st.floats(0, 0.5))
def test_nobody_is_tested_who_would_not_be_with_larger_fractions(
    patients: set[str], key: SplitKey, test: float, validation: float
) -> None:
    """Runs of a hospital nest: whoever a run tests is tested by each that tests more."""
    few, many = (Split(test_fraction=f, validation_fraction=validation) for f in (test, 0.6))
    small, large = (parts_of(patients, rules, key) for rules in (few, many))
    tested = [{p for p in patients if parts[p] == "test"} for parts in (small, large)]
    assert tested[0] <= tested[1]


def test_parts_have_about_the_configured_sizes() -> None:
    patients = {f"p{n}" for n in range(20_000)}
    rules = Split(test_fraction=0.25, validation_fraction=0.1)
    found = Counter(parts_of(patients, rules, KEY).values())
    assert found["test"] / 20_000 == pytest.approx(0.25, abs=0.015)  # five standard errors
    assert found["validation"] / (20_000 - found["test"]) == pytest.approx(0.1, abs=0.013)


@given(patients=NAMES, key=KEYS, folds=st.integers(2, 5))
def test_folds_test_every_patient_once(patients: set[str], key: SplitKey, folds: int) -> None:
    rules = Split(folds=folds)
    tested = [
        patient
        for fold in range(folds)
        for patient, part in parts_of(patients, rules, key, fold).items()
        if part == "test"
    ]
    assert Counter(tested) == Counter(patients)


def test_nobody_validates_in_every_fold() -> None:
    rules = Split(folds=5, validation_fraction=0.3)
    patients = {f"p{n}" for n in range(300)}
    by_fold = [parts_of(patients, rules, KEY, fold) for fold in range(5)]
    always = [p for p in patients if {f[p] for f in by_fold} == {"test", "validation"}]
    assert len(always) < 15  # 0.3 to the fourth is 2.4 of 300


@given(patient=st.text(min_size=1), key=KEYS, part=PARTS)
def test_given_parts_are_kept(patient: str, key: SplitKey, part: Part | None) -> None:
    found = part_of(patient, part, Split(column="split"), key)
    assert found == part if part is not None else found in {"train", "test"}


def test_validation_patients_are_taken_from_a_given_split_where_the_run_says_so_alone() -> None:
    """What other rows say has no part in it: not even that some patients are given to validate."""
    assert Split(column="split").validation_fraction == 0
    assert Split(column="split", validation_fraction=0.3).validation_fraction == 0.3
    rules = Split(column="split", validation_fraction=0.3)
    found = Counter(part_of(f"p{n}", "train", rules, KEY) for n in range(5000))
    assert found["validation"] / 5000 == pytest.approx(0.3, abs=0.035)
    assert found["test"] == 0


def test_seeds_and_keys_split_differently() -> None:
    patients = {f"p{n}" for n in range(200)}
    found = [parts_of(patients, Split(), simulated_key(seed)) for seed in range(3)]
    assert found[0] != found[1] != found[2]
    assert found[0] == parts_of(patients, Split(), simulated_key(0))


def test_a_hospital_keeps_its_key_and_no_other_has_it(tmp_path: Path) -> None:
    first = site_key(tmp_path / "north" / "identity.key")
    assert site_key(tmp_path / "north" / "identity.key") == first
    assert site_key(tmp_path / "south" / "identity.key") != first
    assert first.secret.hex() not in repr(first)
    assert first.secret != (tmp_path / "north" / "identity.key").read_bytes()


@pytest.mark.parametrize(
    ("text", "part"),
    [("Train", "train"), (" TEST ", "test"), ("val", "validation"), ("", None), ("other", None)],
)
def test_a_cell_names_a_part(text: str, part: Part | None) -> None:
    assert part_named(text) == part


FOLDED = """
name: folded
task: {kind: diagnosis, type: binary, target: ill}
cohort: {table: {numbers: [{column: age}]}, split: {folds: 5}}
model: {network: table}
training: {rounds: 2}
"""


def test_folds_are_refused_where_there_is_privacy() -> None:
    refused = r"no cohort.split.folds=5.*test_fraction: 0.2"
    with pytest.raises(ConfigurationError, match=refused):
        parse_config(f"{FOLDED}privacy: {{unit: patient, epsilon: 3}}")
    plain = parse_config(f"{FOLDED}privacy: none")
    with pytest.raises(ConfigurationError, match=refused):
        with_epsilon(plain, 3.0)
