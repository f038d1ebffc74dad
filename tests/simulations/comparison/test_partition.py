"""Dealing patients to sites: exact, repeatable, never below the smallest, as skewed as asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.platform.errors import ConfigurationError
from simulations.comparison.partition import (
    Sites,
    group_skew,
    label_skew,
    quantity_skew,
    scanner_skew,
)

Deal = Callable[[Sequence[int], int, float, int, int], Sites]

#: Every partitioner with the arguments (values, sites, alpha or so, seed, smallest).
DEALS: dict[str, Deal] = {
    "label": label_skew,
    "quantity": lambda values, *rest: quantity_skew(len(values), *rest),
    "group": lambda values, sites, alpha, *rest: group_skew(values, sites, min(1, alpha), *rest),
    "scanner": lambda values, sites, _, seed, smallest: scanner_skew(values, sites, seed, smallest),
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[int], int, float, int, int]:
    """Return values of patients, sites, alpha, seed and a smallest that can be kept."""
    values = draw(st.lists(st.integers(0, 4), min_size=1, max_size=120))
    sites = draw(st.integers(1, min(8, len(values))))
    smallest = draw(st.integers(0, len(values) // sites))
    alpha = draw(st.floats(0.01, 50))
    return values, sites, alpha, draw(st.integers(0, 2**31)), smallest


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
@given(question=questions())
def test_every_patient_is_at_exactly_one_site_and_no_site_is_too_small(
    deal: Deal, question: tuple[list[int], int, float, int, int]
) -> None:
    values, sites, _, _, smallest = question
    dealt = deal(*question)
    assert len(dealt) == sites
    assert sorted(i for site in dealt for i in site) == list(range(len(values)))
    assert min(len(site) for site in dealt) >= smallest
    assert all(list(site) == sorted(site) for site in dealt)


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
@given(question=questions())
def test_the_same_seed_deals_the_same_way_and_leaves_the_global_generator_alone(
    deal: Deal, question: tuple[list[int], int, float, int, int]
) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is what is watched
    assert deal(*question) == deal(*question)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", ["label", "quantity", "group"])
def test_another_seed_deals_another_way(name: str) -> None:
    values = [i % 3 for i in range(90)]
    assert DEALS[name](values, 4, 0.5, 0, 2) != DEALS[name](values, 4, 0.5, 1, 2)


def spread(dealt: Sites, labels: Sequence[int]) -> float:
    """Return how much the part of label 1 differs between sites."""
    parts = [np.mean([labels[i] for i in site]) for site in dealt if site]
    return float(np.std(parts))


def test_smaller_alpha_skews_labels_more() -> None:
    labels = [i % 2 for i in range(400)]

    def usual(alpha: float) -> float:
        dealt = [label_skew(labels, 4, alpha, seed, 10) for seed in range(20)]
        return float(np.mean([spread(d, labels) for d in dealt]))

    assert usual(0.1) > 1.3 * usual(1.0) > 1.3 * 2 * usual(100.0)
    assert usual(100.0) < 0.06


def test_smaller_alpha_skews_sizes_more_but_not_labels() -> None:
    labels = [i % 2 for i in range(2000)]
    skewed = [quantity_skew(2000, 4, 0.3, seed, 50) for seed in range(20)]
    even = [quantity_skew(2000, 4, 100.0, seed, 50) for seed in range(20)]
    largest, usual = (np.mean([max(map(len, d)) for d in deals]) for deals in (skewed, even))
    assert largest > 1.6 * usual
    assert np.mean([spread(d, labels) for d in skewed]) < 0.08


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=80), st.integers(1, 4))
def test_patients_of_one_scanner_stay_together(scanners: list[str], sites: int) -> None:
    dealt = scanner_skew(scanners, sites, seed=0, smallest=0)
    for scanner in set(scanners):
        assert sum(scanner in {scanners[i] for i in site} for site in dealt) == 1


def test_scanners_are_dealt_so_that_sites_are_alike_in_size() -> None:
    scanners = ["a"] * 40 + ["b"] * 30 + ["c"] * 20 + ["d"] * 10
    dealt = scanner_skew(scanners, 2, seed=0)
    assert sorted(len(site) for site in dealt) == [50, 50]


def test_mixing_one_leaves_no_skew_by_group() -> None:
    groups = [i // 250 for i in range(1000)]
    dealt = group_skew(groups, 4, mixing=1.0, seed=0)
    assert {len(site) for site in dealt} == {250}
    for site in dealt:
        counts = Counter(groups[i] for i in site)
        assert min(counts.values()) > 35
    half = group_skew(groups, 4, mixing=0.5, seed=0)
    most = [Counter(groups[i] for i in site).most_common(1)[0][1] for site in half]
    assert all(120 < count < 200 for count in most)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: label_skew([0] * 9, 5, 1.0, 0), "9 patients are too few for 5 sites"),
        (lambda: label_skew([0] * 9, 0, 1.0, 0), "sites=0"),
        (lambda: label_skew([0] * 9, 2, 0.0, 0), "alpha=0.0"),
        (lambda: quantity_skew(9, 2, float("nan"), 0), "alpha=nan"),
        (lambda: group_skew([0] * 9, 2, 1.5, 0), "mixing=1.5"),
        (lambda: quantity_skew(9, 2, 1.0, 0, -1), "smallest=-1"),
    ],
)
def test_what_cannot_be_dealt_is_refused_by_name(ask: Callable[[], Sites], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ask()
