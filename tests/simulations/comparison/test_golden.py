from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch

from tests.simulations.golden import CASES, FILE, differences, numbers_of

EXPECTED = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", CASES)
def test_a_fixed_run_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = numbers_of(name, tmp_path)
    finally:
        torch.set_num_threads(before)
    # Two cases amplify how a processor rounds: they have numbers for each kind of instructions.
    expected = EXPECTED.get(f"{name}@{torch.backends.cpu.get_cpu_capability()}", EXPECTED[name])
    assert differences(found, expected) == []


def test_every_case_is_in_the_file_and_no_other() -> None:
    assert {name.partition("@")[0] for name in EXPECTED} == set(CASES)


def test_no_two_cases_give_the_same() -> None:
    # A setting that is read and then forgotten gives what the run without it gives.
    told = {name: json.dumps(list(arms.values())) for name, arms in EXPECTED.items()}
    same = [pair for pair in combinations(told, 2) if told[pair[0]] == told[pair[1]]]
    assert same == []


@pytest.mark.parametrize(
    ("found", "expected", "number"),
    [
        ({"a": 1.0}, {"a": 1.00005}, 0),
        ({"a": 1.0}, {"a": 1.0002}, 1),
        ({"a": 1}, {"b": 1}, 1),
        ({"headline": 0.9}, {"headline": 0.9009}, 0),
        ({"headline": 0.9}, {"headline": 0.902}, 1),
        ([1.0], [1.0, 2.0], 1),
        (None, 1.0, 1),
        (float("nan"), 1.0, 1),
        (3, 4, 1),
    ],
)
def test_differences_beyond_rounding_are_found(
    found: object, expected: object, number: int
) -> None:
    assert len(differences(found, expected)) == number
