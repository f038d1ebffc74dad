from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from common.metrics import classification
from common.metrics.auroc_interval import auroc
from common.metrics.intervals import (
    bootstrap_weights,
    bootstrapped,
    difference,
    logit_interval,
    mean_estimate,
    weighted_mean,
    wilson_interval,
)

ONE = np.ones((1, 60))


def drawn(seed: int, patients: int = 60, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and outcomes that go together somewhat."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(patients) < 0.4).astype(np.float64)
    truth[:2] = 0, 1
    score = 1 / (1 + np.exp(-(truth + rng.normal(size=patients))))
    return (np.round(score, 1) if ties else score), truth


SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.booleans())
def test_metrics_are_those_of_scikit_learn(seed: int, ties: bool) -> None:  # noqa: FBT001
    score, truth = drawn(seed, ties=ties)
    assert auroc(score, truth, ONE)[0] == pytest.approx(roc_auc_score(truth, score))
    precision = average_precision_score(truth, score)
    assert classification.average_precision(score, truth, ONE)[0] == pytest.approx(precision)
    assert classification.brier(score, truth, ONE)[0] == pytest.approx(
        brier_score_loss(truth, score)
    )
    alarms, found, _ = roc_curve(truth, score, drop_intermediate=False)
    assert classification.sensitivity(score, truth, ONE, 0.9)[0] == pytest.approx(
        found[alarms <= 0.1 + 1e-12].max()
    )


@given(SEEDS)
def test_weights_count_as_copies_of_patients(seed: int) -> None:
    score, truth = drawn(seed)
    weights = bootstrap_weights(60, 3, seed)
    for row in weights:
        copies = np.repeat(np.arange(60), row.astype(int))
        again, ones = (score[copies], truth[copies]), np.ones((1, 60))
        for metric in (auroc, classification.average_precision, classification.brier):
            fast = metric(score, truth, row[None])
            np.testing.assert_allclose(fast, metric(*again, ones))
        assert classification.calibration_error(score, truth, row[None])[0] == pytest.approx(
            classification.calibration_error(*again, ones)[0]
        )


def test_area_counts_pairs_as_its_definition_says() -> None:
    score, truth = drawn(1, 40, ties=True)
    won = [float(s > t) + 0.5 * float(s == t) for s in score[truth == 1] for t in score[truth == 0]]
    assert auroc(score, truth, np.ones((1, 40)))[0] == pytest.approx(np.mean(won))


def test_without_both_outcomes_there_is_no_value() -> None:
    score = np.linspace(0.1, 0.9, 5)
    for truth in (np.zeros(5), np.ones(5)):
        assert np.isnan(auroc(score, truth, np.ones((2, 5)))).all()
        assert np.isnan(classification.sensitivity(score, truth, np.ones((2, 5)), 0.9)).all()
    nobody = np.zeros(0)
    for metric in (
        auroc,
        classification.average_precision,
        classification.brier,
        classification.calibration_error,
    ):
        assert np.isnan(metric(nobody, nobody, np.ones((2, 0)))).all()


def test_calibration_error_is_zero_where_frequencies_are_as_predicted() -> None:
    score = np.repeat([0.1, 0.5, 0.9], 10)
    truth = np.r_[np.eye(10)[0], np.arange(10) % 2, 1 - np.eye(10)[0]]
    assert classification.calibration_error(score, truth, np.ones((1, 30)))[0] == pytest.approx(0)
    assert classification.calibration_error(score, 1 - truth, np.ones((1, 30)))[0] > 0.5


def test_the_bootstrap_interval_is_about_as_wide_as_the_spread_of_new_samples() -> None:
    score, truth = drawn(2, 200)
    found = bootstrapped(lambda w: auroc(score, truth, w), bootstrap_weights(200, 1000, 0))
    fresh = [auroc(*drawn(100 + seed, 200), np.ones((1, 200)))[0] for seed in range(200)]
    assert found.low < found.value < found.high
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(fresh), rel=0.35)


def test_the_bootstrap_repeats_and_leaves_the_global_generator_alone() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - it is what must not change
    one, other = bootstrap_weights(30, 5, 4), bootstrap_weights(30, 5, 4)
    assert (one == other).all()
    assert (one.sum(axis=1) == 30).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_paired_differences_are_narrower_than_those_of_other_patients() -> None:
    score, truth = drawn(3, 200)
    worse = np.clip(score + np.random.default_rng(0).normal(0, 0.02, 200), 0, 1)
    weights, others = bootstrap_weights(200, 500, 0), bootstrap_weights(200, 500, 1)
    found = difference(lambda w: auroc(score, truth, w), lambda w: auroc(worse, truth, w), weights)
    unpaired = auroc(score, truth, weights) - auroc(worse, truth, others)
    assert found.high - found.low < 0.5 * np.ptp(np.quantile(unpaired, [0.025, 0.975]))
    same = difference(lambda w: auroc(score, truth, w), lambda w: auroc(score, truth, w), weights)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@given(st.floats(0, 1), st.integers(2, 500))
def test_intervals_hold_their_value_and_stay_proportions(value: float, count: int) -> None:
    for interval in (wilson_interval, logit_interval):
        found = interval(value, count, count)
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 1


def test_wilson_is_as_published() -> None:
    # Newcombe 1998, table I: 81 of 263.
    found = wilson_interval(81 / 263, 263, 263)
    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)


def test_a_mean_from_its_sums_is_the_mean_and_distances_pass_one() -> None:
    values = np.array([2.0, 3.0, 7.0, 4.0])
    found = mean_estimate(values.sum(), (values**2).sum(), 4.0, most=float("inf"))
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.value) / 1.959964 == pytest.approx(values.std() / 2)
    assert weighted_mean(np.array([1.0, np.nan, 3.0]), np.array([[1.0, 5.0, 3.0]]))[0] == 2.5


def test_a_missing_value_says_why_in_json() -> None:
    found = mean_estimate(0.0, 0.0, 0.0).to_json()
    assert found["value"] is None
    assert "too few" in str(found["reason"])
    assert "reason" not in mean_estimate(4.0, 9.0, 8.0).to_json()
