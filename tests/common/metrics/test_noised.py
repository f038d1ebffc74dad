from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.metrics import classification as exact
from common.metrics import noised_histogram
from common.metrics.intervals import Estimate
from common.metrics.noised import noised_estimate, projected
from common.metrics.statistics import Statistics
from tests.common.every_task import made, rules

Float = NDArray[np.float64]
SITES, TRIALS = 4, 100


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30).map(lambda x: np.array(x, np.float64)))
def test_projected_counts_are_the_nearest_of_none_below_zero_with_the_same_total(
    counts: Float,
) -> None:
    found = projected(counts)
    assert (found >= 0).all()
    if counts.sum() <= 0:
        assert not found.any()
        return
    assert found.sum() == pytest.approx(counts.sum(), abs=1e-9)
    other = np.random.default_rng(0).dirichlet(np.ones(len(counts)), 50) * counts.sum()
    assert (np.linalg.norm(other - counts, axis=1) >= np.linalg.norm(found - counts) - 1e-9).all()
    np.testing.assert_allclose(projected(np.stack([counts, counts])), [found, found])


def drawn(rng: np.random.Generator, cases: int, controls: int) -> tuple[Float, Float]:
    """Return probabilities and outcomes of a model with an AUROC of 0.821."""
    logit = np.r_[rng.normal(-1.2, 1, controls), rng.normal(0.1, 1, cases)]
    return 1 / (1 + np.exp(-logit)), np.r_[np.zeros(controls), np.ones(cases)]


@pytest.mark.parametrize(("cases", "controls"), [(50, 105), (200, 400)])
@pytest.mark.parametrize("noise", [1.5, 3.0])
def test_intervals_of_noised_counts_hold_the_truth(cases: int, controls: int, noise: float) -> None:
    rng = np.random.default_rng(1)
    many = drawn(rng, 100_000, 100_000 * controls // cases)
    one = np.ones((1, len(many[0])))
    truth = {
        "auroc": 0.821,
        "brier": exact.brier(*many, one)[0],
        "average_precision": exact.average_precision(*many, one)[0],
    }
    told: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(TRIALS):
        cells = noised_histogram.histogram_of(*drawn(rng, cases, controls))
        cells += rng.normal(0, noise * SITES**0.5, len(cells))
        found = noised_histogram.metrics_of(cells, noise**2 * SITES)
        for name, value in truth.items():
            if np.isnan(found[name].value):
                assert "hides it" in found[name].reason
            else:
                told[name].append(found[name].low <= value <= found[name].high)
    assert len(told["auroc"]) > TRIALS / 2
    for name, held in told.items():
        assert held.count(False) <= 0.1 * TRIALS, name


def test_at_the_noise_of_the_shipped_runs_an_auroc_of_155_patients_is_told() -> None:
    """breast-us has about 50 malignant and 105 benign test patients at four sites."""
    rng, widths = np.random.default_rng(2), []
    for _ in range(30):
        cells = noised_histogram.histogram_of(*drawn(rng, 50, 105))
        cells += rng.normal(0, 1.5 * SITES**0.5, len(cells))
        found = noised_histogram.metrics_of(cells, 1.5**2 * SITES)["auroc"]
        widths.append(found.high - found.low)
    assert 0.1 < np.mean(widths) < 0.35


def test_dice_of_noised_counts_holds_the_truth_and_noise_alone_tells_nothing() -> None:
    task, some, rng = made("outline"), rules(count_noise=2.0), np.random.default_rng(3)
    told = []
    for _ in range(TRIALS):
        dice = rng.beta(6, 2, 130)
        cells = np.bincount((dice * 10).astype(int), minlength=11).astype(np.float64)
        noisy = Statistics(
            patients=np.zeros(()),
            cells={"dice": (cells + rng.normal(0, 4.0, 11))[None]},
            sums={},
            noise=16.0,
        )
        found = task.summarise(noisy, some)
        assert found["dice"] == found["dice_lesion"]
        told.append(found["dice"].low <= 0.75 <= found["dice"].high)
    assert np.mean(told) >= 0.9
    alone = Statistics(
        patients=np.zeros(()), cells={"dice": rng.normal(0, 4.0, (1, 11))}, sums={}, noise=16.0
    )
    assert "hides it" in task.summarise(alone, some)["dice"].reason


def test_more_noise_never_makes_an_interval_narrower() -> None:
    cells = noised_histogram.histogram_of(*drawn(np.random.default_rng(4), 200, 400))
    found = [
        noised_histogram.metrics_of(cells, noise)["auroc"] for noise in (0.0, 4.0, 16.0, 100.0)
    ]
    widths = [e.high - e.low for e in found]
    assert widths == sorted(widths)


def test_a_value_that_cannot_be_had_stays_so() -> None:
    def none(_part: Float) -> Estimate:
        return Estimate(value=np.nan, low=np.nan, high=np.nan, patients=0, reason="none")

    value = partial(np.mean, axis=1)
    assert noised_estimate([np.full(4, 50.0)], 1.0, value, none).reason == "none"
