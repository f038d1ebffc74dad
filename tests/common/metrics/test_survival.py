from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sksurv.metrics import (
    concordance_index_censored,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from common.metrics.intervals import Float
from common.metrics.times import life_table, survival

SEEDS = st.integers(0, 10_000)
EDGES = np.array([3.0, 6.0, 12.0, 24.0])


def drawn(seed: int, patients: int = 80, *, whole: bool = False) -> tuple[Float, Float, Float]:
    """Return times, events and risks that go together somewhat; whole times tie."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=patients)
    death = rng.exponential(15 * np.exp(-risk))
    lost = rng.uniform(5, 60, patients)
    time, event = np.minimum(death, lost), (death <= lost).astype(np.float64)
    return (np.ceil(time) if whole else time), event, 1 / (1 + np.exp(-risk))


@given(SEEDS, st.booleans())
def test_concordance_is_that_of_scikit_survival(seed: int, whole: bool) -> None:  # noqa: FBT001
    time, event, risk = drawn(seed, whole=whole)
    risk = np.round(risk, 1)
    expected = concordance_index_censored(event == 1, time, risk)[0]
    assert survival.concordance(time, event, risk, np.ones((1, 80)))[0] == pytest.approx(expected)


def test_concordance_counts_pairs_as_harrell_says() -> None:
    time, event, risk = drawn(1, 25, whole=True)
    won, pairs = 0.0, 0
    for i in range(25):
        for j in range(25):
            first = time[i] < time[j] or (time[i] == time[j] and event[j] == 0)
            if i != j and event[i] == 1 and first:
                pairs += 1
                won += float(risk[i] > risk[j]) + 0.5 * float(risk[i] == risk[j])
    found = survival.concordance(time, event, risk, np.ones((1, 25)))[0]
    assert found == pytest.approx(won / pairs)


def test_without_an_event_there_is_no_concordance() -> None:
    found = survival.concordance(np.arange(5.0), np.zeros(5), np.arange(5.0), np.ones((2, 5)))
    assert np.isnan(found).all()
    assert np.isnan(survival.merged_concordance(np.zeros(5), 5).value)


@given(st.lists(SEEDS, min_size=1, max_size=4))
def test_merged_concordance_is_stratified_by_site(seeds: list[int]) -> None:
    parts = [drawn(seed, 30) for seed in seeds]
    merged = survival.merged_concordance(
        sum((survival.concordance_sums(*p) for p in parts), np.zeros(5)), 30 * len(parts)
    )
    tables = [survival.pairs(*p) for p in parts]
    won, total = sum(float(c.sum()) for _, c in tables), sum(float(n.sum()) for n, _ in tables)
    assert merged.value == pytest.approx(won / total)


def test_its_interval_is_as_wide_as_the_spread_of_new_samples() -> None:
    found = survival.merged_concordance(survival.concordance_sums(*drawn(0, 150)), 150)
    fresh = [
        survival.concordance(*drawn(seed, 150), np.ones((1, 150)))[0] for seed in range(1, 201)
    ]
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(fresh), rel=0.3)


@given(SEEDS)
def test_auc_at_a_horizon_is_that_of_scikit_survival(seed: int) -> None:
    time, event, risk = drawn(seed, 120)
    known = Surv.from_arrays(event == 1, time)
    expected, _ = cumulative_dynamic_auc(known, known, risk, [12.0])
    found = survival.auc_at(12.0, time, event, risk, np.ones((1, 120)))
    assert found[0] == pytest.approx(expected[0])


@given(SEEDS)
def test_integrated_brier_is_that_of_scikit_survival(seed: int) -> None:
    time, event, risk = drawn(seed, 120)
    curve = np.exp(-np.outer(risk, EDGES) / 10)
    # scikit-survival takes times inside the follow-up only.
    inside = time.max() > EDGES
    if inside.sum() < 2:
        return
    known = Surv.from_arrays(event == 1, time)
    expected = integrated_brier_score(known, known, curve[:, inside], EDGES[inside])
    found = survival.brier_by_patient(time, event, curve[:, inside], EDGES[inside]).mean()
    assert found == pytest.approx(expected)


@given(SEEDS, st.booleans())
def test_kaplan_meier_is_that_of_scikit_survival(seed: int, whole: bool) -> None:  # noqa: FBT001
    time, event, _ = drawn(seed, whole=whole)
    times, expected = kaplan_meier_estimator(event == 1, time)
    np.testing.assert_allclose(survival.kaplan_meier(time, event, times), expected, atol=1e-12)


# --- life tables ---------------------------------------------------------------------------


@given(SEEDS, st.integers(0, 120), st.integers(1, 7), st.integers(1, 4))
def test_a_released_table_has_no_small_cell_and_joins_nothing_across_the_horizon(
    seed: int, patients: int, smallest: int, boundary: int
) -> None:
    time, event, _ = drawn(seed, patients)
    table = life_table.life_table(time, event, EDGES)
    assert table.sum() == patients
    told = life_table.released_table(table, boundary, smallest)
    assert ((told == 0) | (told >= smallest)).all()
    if told.any():
        for part in (slice(None, boundary), slice(boundary, None)):
            np.testing.assert_allclose(told[:, part].sum(axis=1), table[:, part].sum(axis=1))
            # Joined intervals count in the last: never earlier than they were.
            assert (told[:, part].cumsum(axis=1) <= table[:, part].cumsum(axis=1)).all()


def test_a_table_is_told_where_every_cell_is_large() -> None:
    table = np.array([[9.0, 8.0, 7.0], [6.0, 5.0, 30.0]])
    np.testing.assert_array_equal(life_table.released_table(table, 1, 5), table)
    table[1, 0] = 2.0
    assert not life_table.released_table(table, 1, 5).any()
    joined = life_table.released_table(table, 2, 5)
    np.testing.assert_array_equal(joined, [[0.0, 17.0, 7.0], [0.0, 7.0, 30.0]])


def test_merged_survival_is_near_kaplan_meier() -> None:
    parts = [drawn(seed, 500) for seed in range(3)]
    edges = np.arange(2.0, 31.0, 2.0)
    table = sum((life_table.life_table(t, e, edges) for t, e, _ in parts), np.zeros((2, 16)))
    time, event = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    found = life_table.merged_survival(table)
    exact = survival.kaplan_meier(time, event, edges)
    np.testing.assert_allclose([f.value for f in found], exact, atol=0.01)
    assert all(f.low < f.value < f.high for f in found)
    # Greenwood without censoring is the binomial's.
    plain = life_table.merged_survival(life_table.life_table(np.arange(100.0), np.ones(100), edges))
    value = plain[4].value
    assert value == pytest.approx(0.89)
    assert plain[4].high - value == pytest.approx(1.959964 * np.sqrt(value * (1 - value) / 100))


@given(SEEDS, st.integers(1, 60))
def test_one_patient_more_is_in_one_cell_of_the_risk_table(seed: int, patients: int) -> None:
    time, event, risk = drawn(seed, patients)
    more = life_table.risk_table(time, event, risk, EDGES) - life_table.risk_table(
        time[1:], event[1:], risk[1:], EDGES
    )
    assert more.sum() == 1
    assert np.count_nonzero(more) == 1


def test_a_risk_tables_concordance_is_near_the_exact_one() -> None:
    time, event, risk = drawn(5, 2000)
    edges = np.arange(1.0, 61.0)
    held = life_table.risk_table(time, event, risk, edges).reshape(life_table.RISK_BINS, 2, -1)
    exact = survival.concordance(time, event, risk, np.ones((1, 2000)))[0]
    found = life_table.table_concordance(held)
    assert found.value == pytest.approx(exact, abs=0.03)
    assert abs(found.value - exact) < found.bound
    area = life_table.table_auc(held, 12)
    case, known = (time <= 12) & (event == 1), (time > 12) | (event == 1)
    assert area.patients == known.sum()
    plain = np.mean(risk[case][:, None] > risk[time > 12][None, :])
    assert abs(area.value - plain) <= area.bound


def test_of_noise_alone_there_is_no_concordance() -> None:
    held = np.zeros((life_table.RISK_BINS, 2, 5))
    assert np.isnan(life_table.table_concordance(held).value)
    assert np.isnan(life_table.table_auc(held, 2).value)
