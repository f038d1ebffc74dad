from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.metrics import classification, noised_histogram
from common.metrics.auroc_interval import auroc, hanley_mcneil, merged_auroc
from common.metrics.intervals import Estimate, Float
from common.metrics.label_release import LabelRows, known_rows, release_label
from common.metrics.score_ranges import (
    BINS,
    Ranges,
    bin_of,
    merged_average_precision,
    merged_sensitivity,
    ranges_of,
)

SEEDS = st.integers(0, 10_000)


def site(seed: int, patients: int, *, ties: bool = False) -> tuple[Float, Float]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(patients) < 0.5).astype(np.float64)
    score = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, rng.uniform(0.3, 3), patients))))
    return (np.round(score, 2) if ties else score), truth


def added(parts: list[tuple[Float, Float]], smallest: int) -> tuple[Ranges, Ranges, Float, Float]:
    """Return merged ranges of cases and controls, and the scores and outcomes behind them."""
    held: dict[float, list[Ranges]] = {0.0: [], 1.0: []}
    behind: list[tuple[Float, Float]] = []
    for score, truth in parts:
        for outcome, ranges in held.items():
            here = truth == outcome
            found, number = ranges_of(score[here], np.arange(here.sum()), smallest)
            ranges.append(found)
            if (number >= 0).all() and here.any():
                behind.append((score[here], truth[here]))
    nobody = [(np.zeros(0), np.zeros(0))]
    scores, truths = (np.concatenate(p) for p in zip(*(behind or nobody), strict=True))
    positive, negative = (
        Ranges(*(np.sum(p, axis=0) for p in zip(*held[k], strict=True))) for k in (1.0, 0.0)
    )
    return positive, negative, scores, truths


@given(
    st.lists(st.tuples(SEEDS, st.integers(0, 60)), min_size=1, max_size=4),
    st.integers(1, 7),
    st.booleans(),
)
def test_the_exact_values_are_within_the_stated_bounds(
    sites: list[tuple[int, int]],
    smallest: int,
    ties: bool,  # noqa: FBT001
) -> None:
    parts = [site(seed, patients, ties=ties) for seed, patients in sites]
    positive, negative, score, truth = added(parts, smallest)
    cases, controls = positive.first.sum(), negative.first.sum()
    one = np.ones((1, len(score)))
    exact: list[tuple[Estimate, Callable[[], Float]]] = [
        (merged_auroc(positive, negative, cases, controls), lambda: auroc(score, truth, one)),
        (
            merged_average_precision(positive, negative),
            lambda: classification.average_precision(score, truth, one),
        ),
        (
            merged_sensitivity(positive, negative, 0.9),
            lambda: classification.sensitivity(score, truth, one, 0.9),
        ),
    ]
    for found, value in exact:
        if min(cases, controls) == 0:
            assert np.isnan(found.value)
            assert found.reason
        else:
            assert abs(found.value - value()[0]) <= found.bound + 1e-5
            assert 0 <= found.low <= found.value <= found.high <= 1


@given(SEEDS, st.integers(0, 80), st.integers(1, 7))
def test_no_range_holds_few_and_all_three_counts_agree(
    seed: int, patients: int, smallest: int
) -> None:
    score, _ = site(seed, patients)
    found, number = ranges_of(score, np.arange(patients), smallest)
    for counts in (found.first, found.last):
        assert ((counts == 0) | (counts >= smallest)).all()
    total = patients if patients >= smallest else 0
    assert [part.sum() for part in found] == pytest.approx([total] * 3)
    assert len(number) == patients
    # Each range's spread is inside it.
    assert (np.cumsum(found.last) <= np.cumsum(found.spread) + 1e-9).all()
    assert (np.cumsum(found.spread) <= np.cumsum(found.first) + 1e-9).all()


def test_of_many_patients_the_merged_area_is_near_the_exact_one() -> None:
    parts = [site(seed, 400) for seed in (1, 2, 3)]
    positive, negative, score, truth = added(parts, 5)
    found = merged_auroc(positive, negative, positive.first.sum(), negative.first.sum())
    exact = auroc(score, truth, np.ones((1, len(score))))[0]
    assert found.value == pytest.approx(exact, abs=0.005)
    assert found.bound < 0.06


def test_few_patients_a_site_cost_little_accuracy() -> None:
    gaps = []
    for seed in range(20):
        parts = [site(10 * seed + k, 50) for k in range(4)]
        positive, negative, score, truth = added(parts, 5)
        found = merged_auroc(positive, negative, positive.first.sum(), negative.first.sum())
        gaps.append(found.value - auroc(score, truth, np.ones((1, len(score))))[0])
    assert np.abs(gaps).mean() < 0.015


def test_the_standard_error_is_the_spread_over_samples_of_its_model() -> None:
    # Exponential scores, for which Hanley and McNeil's formula is exact.
    rng = np.random.default_rng(0)
    truth = np.r_[np.ones(30), np.zeros(50)]
    scores = rng.exponential(np.where(truth == 1, 4.0, 1.0), (2000, 80))
    areas = [auroc(score, truth, np.ones((1, 80)))[0] for score in scores]
    assert np.mean(areas) == pytest.approx(0.8, abs=0.005)
    assert np.std(areas) == pytest.approx(hanley_mcneil(0.8, 30, 50), rel=0.06)


@given(st.floats(0, 1), st.floats(0, 1))
def test_bins_rise_with_the_score(one: float, other: float) -> None:
    low, high = bin_of(np.array(sorted((one, other))))
    assert 0 <= low <= high < BINS


# --- one label of a site -------------------------------------------------------------------


@given(SEEDS, st.integers(0, 70), st.integers(2, 7))
def test_a_label_tells_no_small_cell(seed: int, patients: int, smallest: int) -> None:
    score, truth = site(seed, patients)
    truth[::7] = np.nan
    rows = known_rows(LabelRows(score, truth, np.arange(patients)), smallest)
    found = release_label(rows, smallest, by_class=True)
    for cells in (found.positive, found.negative, found.reliability):
        assert ((cells == 0) | (cells >= smallest)).all()
    unknown = patients - found.brier[0]
    assert found.brier[0] == 0 or unknown == 0 or unknown >= smallest
    # The calibration table is made of whole ranges: nothing finer can be had by subtraction.
    told = found.positive[0].sum() + found.negative[0].sum()
    assert found.reliability.sum() == pytest.approx(told)


def test_held_back_classes_leave_no_trace_but_the_brier_score() -> None:
    score, truth = site(1, 40)
    found = release_label(LabelRows(score, truth, np.arange(40)), 5, by_class=False)
    for part in (found.positive, found.negative, found.spread, found.reliability, found.predicted):
        assert not part.any()
    assert found.brier[1] == pytest.approx(((score - truth) ** 2).sum())


def test_merged_calibration_is_near_the_exact_one() -> None:
    score, truth = site(4, 3000)
    found = release_label(LabelRows(score, truth, np.arange(3000)), 5, by_class=True)
    merged = classification.merged_calibration(found.reliability, found.predicted)
    exact = classification.calibration_error(score, truth, np.ones((1, 3000)))[0]
    assert merged.value == pytest.approx(exact, abs=0.01)


# --- histograms for noise ------------------------------------------------------------------


@given(SEEDS, st.integers(12, 60))
def test_of_a_histogram_too_the_exact_values_are_within_the_bounds(
    seed: int, patients: int
) -> None:
    score, truth = site(seed, patients)
    truth[:2] = 0, 1
    held = noised_histogram.parts_of(noised_histogram.histogram_of(score, truth))
    one = np.ones((1, patients))
    for found, exact in (
        (noised_histogram.area(held), auroc(score, truth, one)),
        (noised_histogram.precision(held), classification.average_precision(score, truth, one)),
        (noised_histogram.brier(held), classification.brier(score, truth, one)),
    ):
        assert abs(found.value - exact[0]) <= found.bound + 1e-5


@given(SEEDS, st.integers(0, 60))
def test_one_patient_more_is_one_count_more_in_one_cell(seed: int, patients: int) -> None:
    score, truth = site(seed, patients + 1)
    more = noised_histogram.histogram_of(score, truth) - noised_histogram.histogram_of(
        score[:-1], truth[:-1]
    )
    assert sorted(more)[-2:] == [0, 1]
    assert more.sum() == 1


def test_a_patients_images_are_one_patient() -> None:
    owner = np.array([7, 3, 7, 3, 9])
    value = np.array([0.2, 1.0, 0.4, np.nan, np.nan])
    np.testing.assert_allclose(noised_histogram.by_patient(value, owner), [1.0, 0.3, np.nan])


def test_counts_below_zero_by_noise_do_no_harm() -> None:
    cells = np.full(2 * noised_histogram.BINS + 1, -3.0)
    held = noised_histogram.parts_of(np.maximum(cells, 0.0))
    assert np.isnan(noised_histogram.area(held).value)
    assert np.isnan(noised_histogram.brier(held).value)
    for found in noised_histogram.metrics_of(cells, 4.0).values():
        assert np.isnan(found.value)
        assert found.reason
        assert found.patients == 0
