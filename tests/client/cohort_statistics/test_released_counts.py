"""The guarantee of client/cohort_statistics/released_counts.py, line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.cohort_statistics.released_counts import CountMembers, noised, released, sensitivity
from common.messages.cohort_statistics import LEFT_OUT, CohortStatistics, merge_cohorts
from common.privacy.noise import SimulatedNoise

SMALLEST = 5
ROWS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(0, 30).map(str), max_size=12), min_size=1
)


def told(rows: Mapping[str, Sequence[str]], name: str = "modality") -> Mapping[str, float | None]:
    statistics = released({name: CountMembers(unit="studies", rows=rows)}, SMALLEST)
    return statistics.tables[name].rows


@given(ROWS)
def test_no_count_that_is_told_has_fewer_patients_behind_it(rows: dict[str, list[str]]) -> None:
    for row, count in told(rows).items():
        if count:
            assert count == len(rows[row])
            assert len(set(rows[row])) >= SMALLEST


@given(ROWS)
def test_a_total_gives_no_small_count_away(rows: dict[str, list[str]]) -> None:
    found = told(rows)
    held = [row for row, count in found.items() if count is None]
    behind = set(chain.from_iterable(rows[row] for row in held))
    everybody = [row for row, count in found.items() if count]
    assert not held or len(behind) >= SMALLEST or not everybody


def test_one_small_count_takes_the_next_smallest_with_it() -> None:
    rows = {"a": [f"a{n}" for n in range(9)], "b": [f"b{n}" for n in range(6)], "c": ["c"]}
    assert told(rows) == {"a": 9.0, "b": None, "c": None}
    assert told({**rows, "d": [f"d{n}" for n in range(4)]}) == {
        "a": 9.0,
        "b": 6.0,
        "c": None,
        "d": None,
    }


def test_many_studies_of_few_patients_are_few() -> None:
    assert told({"a": ["p", "q"] * 50}) == {"a": None}
    assert told({"a": ["p", "q", "r", "s", "t"] * 2}) == {"a": 10.0}


def test_nobody_is_told_of() -> None:
    assert told({"a": [], "b": [str(n) for n in range(5)]}) == {"a": 0.0, "b": 5.0}


@pytest.mark.parametrize("lost", range(12))
def test_what_was_found_less_what_is_used_tells_no_small_number(lost: int) -> None:
    used = [str(n) for n in range(40)]
    gone = [f"gone {n}" for n in range(lost)]
    rows = told({"found": used + gone, "used": used, "left out": gone}, "studies")
    assert rows["used"] == 40
    if 0 < lost < SMALLEST:
        assert rows["left out"] is None
        assert rows["found"] is None
    else:
        assert rows == {"found": 40 + lost, "used": 40, "left out": lost}


def test_no_sum_or_difference_over_all_tables_gives_a_small_left_out_away() -> None:
    used = [str(n) for n in range(40)]
    gone = ["x", "y"]
    tables = {
        "studies": CountMembers(
            unit="studies", rows={"found": used + gone, "used": used, "left out": gone}
        ),
        "patients": CountMembers(
            unit="patients", rows={"found": used + gone, "used": used, "left out": gone}
        ),
        LEFT_OUT: CountMembers(unit="studies", rows={"BLANK": ["x"], "DECODE_ERROR": ["y"]}),
        "modality": CountMembers(unit="studies", rows={"CT": used[:30], "MR": used[30:]}),
    }
    statistics = released(tables, SMALLEST)
    numbers = [n for t in statistics.tables.values() for n in t.rows.values() if n]
    sums = {sum(c) for size in (1, 2, 3) for c in combinations(numbers, size)}
    differences = {abs(a - b) for a in sums for b in sums} | sums
    assert {1.0, 2.0} & differences == set()
    assert statistics.tables[LEFT_OUT].rows == {"BLANK": None, "DECODE_ERROR": None}


def without_a_patient(rows: dict[str, list[str]], patient: str) -> dict[str, list[str]]:
    return {row: [p for p in people if p != patient] for row, people in rows.items()}


class NoNoise:
    """Lets the counts be seen that noise is added to."""

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> object:
        del standard_deviation
        import torch

        return torch.zeros(shape, dtype=torch.float64)


@given(ROWS, st.integers(0, 30).map(str))
def test_one_patient_moves_the_noised_counts_by_no_more_than_the_sensitivity(
    rows: dict[str, list[str]], patient: str
) -> None:
    def tables(of: dict[str, list[str]]) -> dict[str, CountMembers]:
        everybody = sorted(set(chain.from_iterable(of.values())))
        return {
            "modality": CountMembers(unit="studies", rows=of),
            "age (years)": CountMembers(unit="studies", rows=dict(reversed(of.items()))),
            "studies": CountMembers(
                unit="studies", rows={"found": everybody, "used": everybody, "left out": []}
            ),
            "patients": CountMembers(
                unit="patients", rows={"found": everybody, "used": everybody, "left out": []}
            ),
        }

    def counts(of: dict[str, list[str]]) -> list[float]:
        found = noised(tables(of), SMALLEST, 1.0, NoNoise())  # type: ignore[arg-type]
        return [n or 0.0 for t in found.tables.values() for n in t.rows.values()]

    before, after = counts(rows), counts(without_a_patient(rows, patient))
    assert math.dist(before, after) <= sensitivity(tables(rows)) + 1e-9


def test_noise_is_as_large_as_was_charged() -> None:
    rows = {str(n): [f"{n}-{p}" for p in range(10)] for n in range(400)}
    found = noised({"modality": CountMembers(unit="studies", rows=rows)}, 5, 3.0, SimulatedNoise(1))
    errors = [n - 10 for n in found.tables["modality"].rows.values() if n is not None]
    spread = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert 2.7 < spread < 3.3
    assert found.noise == 3.0


def test_merging_adds_what_was_told_and_names_who_held_back() -> None:
    def site(rows: Mapping[str, Sequence[str]]) -> CohortStatistics:
        return released({"modality": CountMembers(unit="studies", rows=rows)}, SMALLEST)

    many = [str(n) for n in range(12)]
    parts = {
        "north": site({"CT": many, "MR": many[:7]}),
        "south": site({"CT": many[:6], "MR": many[:1]}),
        "west": site({"CT": many[:8], "MR": []}),
    }
    merged = merge_cohorts(parts)["modality"]
    assert merged.sites == ("north", "south", "west")
    assert merged.rows["CT"].told == 12 + 8
    assert merged.rows["CT"].held_back_by == ("south",)
    assert merged.rows["MR"].told == 7
    assert merge_cohorts(dict(reversed(parts.items()))) == merge_cohorts(parts)
