from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.split import Part, part_named, split_patients
from common.config import Split

STRATA = st.dictionaries(st.text("abcdefgh0123", min_size=1, max_size=6), st.sampled_from("xyz"))
SEEDS = st.integers(0, 5)


def counts(parts: dict[str, Part]) -> Counter[Part]:
    return Counter(parts.values())


@given(strata=STRATA, seed=SEEDS)
def test_every_patient_is_in_one_part_whatever_the_order_of_files(
    strata: dict[str, str], seed: int
) -> None:
    parts = split_patients(strata, {}, Split(), seed)
    backwards = dict(reversed(list(strata.items())))
    assert set(parts) == set(strata)
    assert parts == split_patients(backwards, {}, Split(), seed)


@given(strata=STRATA, seed=SEEDS, test=st.floats(0.1, 0.5), validation=st.floats(0, 0.5))
def test_parts_have_the_configured_sizes_in_all_and_in_each_stratum(
    strata: dict[str, str], seed: int, test: float, validation: float
) -> None:
    rules = Split(test_fraction=test, validation_fraction=validation)
    parts = split_patients(strata, {}, rules, seed)
    found = counts(parts)
    assert found["test"] == round(test * len(strata))
    assert found["validation"] == round(validation * (len(strata) - found["test"]))
    for stratum in set(strata.values()):
        held = [parts[p] for p in strata if strata[p] == stratum]
        assert abs(held.count("test") - test * len(held)) < 1.01


@given(strata=STRATA, seed=SEEDS, folds=st.integers(2, 5))
def test_folds_test_every_patient_once_in_folds_of_one_size(
    strata: dict[str, str], seed: int, folds: int
) -> None:
    rules = Split(folds=folds)
    tested = [
        {p for p, part in split_patients(strata, {}, rules, seed, fold).items() if part == "test"}
        for fold in range(folds)
    ]
    assert sum(map(len, tested)) == len(strata)
    assert set().union(*tested) == set(strata)
    assert max(map(len, tested)) - min(map(len, tested)) <= 1


@given(strata=STRATA, seed=SEEDS)
def test_given_parts_are_kept_and_validation_comes_from_training(
    strata: dict[str, str], seed: int
) -> None:
    given_parts: dict[str, Part] = {
        p: "test" if n % 3 == 0 else "train" for n, p in enumerate(sorted(strata))
    }
    parts = split_patients(strata, given_parts, Split(column="split"), seed)
    for patient, part in parts.items():
        kept = {"test"} if given_parts[patient] == "test" else {"train", "validation"}
        assert part in kept
    training = sum(part == "train" for part in given_parts.values())
    assert counts(parts)["validation"] == round(0.15 * training)


def test_given_validation_patients_are_the_only_ones() -> None:
    given_parts: dict[str, Part] = {f"p{n}": "train" for n in range(20)} | {"v": "validation"}
    parts = split_patients(dict.fromkeys(given_parts, ""), given_parts, Split(column="s"), 0)
    assert [p for p, part in parts.items() if part == "validation"] == ["v"]


def test_seeds_split_differently_and_another_patient_moves_few() -> None:
    strata = {f"p{n}": "x" for n in range(200)}
    first, second = (split_patients(strata, {}, Split(), seed) for seed in (0, 1))
    assert first != second
    more = split_patients({**strata, "new": "x"}, {}, Split(), 0)
    assert sum(first[p] != more[p] for p in strata) < 12


@pytest.mark.parametrize(
    ("text", "part"),
    [("Train", "train"), (" TEST ", "test"), ("val", "validation"), ("", None), ("other", None)],
)
def test_a_cell_names_a_part(text: str, part: Part | None) -> None:
    assert part_named(text) == part
