"""Numbers between public ends: what is read, learned, measured and told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.config.run_config import RegressionTask
from common.metrics.agreement import Pairs, Range, exact, of_sums, sums_of
from common.metrics.conformal import COVERAGE, halves_of
from common.metrics.conformal import exact as intervals
from common.metrics.noised_error import error_histograms, metrics_of
from common.metrics.statistics import Statistics, merge
from common.tasks import Scores, UnusableLabel
from common.tasks.regression import Regression
from tests.common.every_task import config_of, made, rules, scored

ENDS = Range(low=0.0, high=100.0)


def task_with(**update: object) -> Regression:
    config = config_of("number")
    assert isinstance(config, RegressionTask)
    return Regression(config=RegressionTask.model_validate(config.model_dump() | update))


def scores_of(truth: np.ndarray, predicted: np.ndarray, task: Regression | None = None) -> Scores:
    """Return scores of these numbers, the prediction clipped to the range."""
    told = task or task_with()
    target = torch.tensor(truth, dtype=torch.float32)[:, None]
    output = (torch.tensor(predicted, dtype=torch.float32)[:, None] - 50) / 25
    return Scores(
        prediction=told.predict(output), target=target, loss=told.item_loss(output, target)
    )


def pairs_of(truth: np.ndarray, predicted: np.ndarray) -> Pairs:
    return Pairs(ENDS.scaled(truth), ENDS.scaled(predicted), np.arange(len(truth)))


# --- what is read --------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("55.5", 55.5), (" 0 ", 0.0), ("5,5", 5.5)])
def test_a_number_is_read_as_other_columns_are(text: str, number: float) -> None:
    assert task_with().encode({"ef": text}).tolist() == [number]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("column ef is empty", "a number from 0 to 100")),
        ("normal", ("'normal'", "a number from 0 to 100")),
        ("nan", ("'nan'", "a number from 0 to 100")),
        ("400", ("holds 400, beyond the run's range", "from 0 to 100 %")),
        ("-1", ("holds -1, beyond", "from 0 to 100 %")),
    ],
)
def test_what_is_no_number_of_the_range_is_unusable(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(UnusableLabel) as refused:
        task_with().encode({"ef": text})
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(("text", "number"), [("400", 100.0), ("-1", 0.0), ("1e300", 100.0)])
def test_where_it_is_clipped_it_counts_as_the_nearer_end(text: str, number: float) -> None:
    assert task_with(beyond="clip").encode({"ef": text}).tolist() == [number]


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"range": (100, 0)}, "must rise"),
        ({"range": (5, 5)}, "must rise"),
        ({"center": 101.0}, "center=101 lies outside"),
        ({"scale": 1e-9}, "scale=1e-09 is not between"),
        ({"scale": 1e9}, r"scale=1e\+09 is not between"),
        ({"unit": "per cent"}, "unit"),
        ({"unit": ""}, "unit"),
    ],
)
def test_a_range_that_nothing_could_be_learned_in_is_refused(
    update: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        task_with(**update)


# --- what is learned -----------------------------------------------------------------------


def check_bounded() -> None:
    """Refuse an outcome beyond the range that moves a weight more than the range allows."""
    task = task_with(beyond="clip")

    def moved(text: str) -> Tensor:
        network = torch.nn.Linear(3, 1)
        torch.nn.init.ones_(network.weight)
        torch.nn.init.zeros_(network.bias)
        target = torch.from_numpy(task.encode({"ef": text}))[None]
        loss = task.item_loss(network(torch.ones(1, 3)), target).sum()
        (found,) = torch.autograd.grad(loss, network.weight)
        return found

    for beyond, end in (("400", "100"), ("-1e30", "0")):
        assert torch.equal(moved(beyond), moved(end)), f"an outcome of {beyond} moves weights more"
    with pytest.raises(UnusableLabel):
        task_with().encode({"ef": "400"})


def test_an_outcome_of_400_moves_no_weight_more_than_the_range_allows() -> None:
    check_bounded()


def test_the_loss_is_of_the_scaled_number_and_comes_back_from_beyond_an_end() -> None:
    output, target = torch.tensor([[3.0]]), torch.tensor([[50.0]])
    squared = task_with(loss="mse", scale=20.0, center=30.0)
    assert float(squared.item_loss(output, target)) == pytest.approx((3 - 1) ** 2)
    assert float(squared.predict(output)) == 90
    huber = task_with()  # 3 steps of 25 beyond 50 is beyond 100
    assert float(huber.predict(output)) == 100
    assert float(huber.item_loss(output, target)) == pytest.approx(3 - 0.5)
    gradient = torch.func.grad(lambda given: huber.item_loss(given, target).sum())(output)
    assert float(gradient) == 1.0


# --- what is measured ----------------------------------------------------------------------


def test_metrics_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 90, 200)
    predicted = np.clip(truth * 0.7 + 20 + rng.normal(0, 8, 200), 0, 100)
    found = exact(pairs_of(truth, predicted), ENDS, np.ones((3, 200)))
    error = predicted - truth
    slope, intercept = np.polyfit(predicted, truth, 1)
    expected = {
        "r2": 1 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum(),
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "bias": error.mean(),
        "agreement_low": error.mean() - 1.959964 * error.std(ddof=1),
        "agreement_high": error.mean() + 1.959964 * error.std(ddof=1),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-9), name


def test_merged_sums_of_sites_are_the_metrics_of_all_their_patients() -> None:
    rng, task, some = np.random.default_rng(1), task_with(), rules()
    sites = []
    for shift in (-20, 0, 20):  # unlike sites: R2 takes the variance between them, too
        truth = np.clip(rng.normal(50 + shift, 10, 30), 0, 100)
        sites.append(scores_of(truth, truth + rng.normal(0, 8, 30)))
    merged = task.summarise(merge(task.statistics(site, some) for site in sites), some)
    everybody = Scores(*(torch.cat(part) for part in list(zip(*sites, strict=True))[:3]))
    together = task.exact(everybody, np.ones((2, 90)), some)
    for name in ("r2", "mae", "rmse", "bias", "calibration_slope", "calibration_intercept"):
        assert merged[name].value == pytest.approx(together[name].value, abs=1e-5), name
    assert merged["r2"].value > max(task.draws(site, np.ones((1, 30)), some)[0] for site in sites)


@pytest.mark.parametrize(("slope", "spread"), [(0.0, 0.0), (0.5, 6.0), (1.0, 10.0)])
def test_intervals_of_sums_hold_the_truth_as_often_as_they_say(slope: float, spread: float) -> None:
    rng, held = np.random.default_rng(2), {"r2": 0, "rmse": 0, "mae": 0, "calibration_slope": 0}

    def drawn(patients: int) -> Pairs:
        truth = rng.normal(50, 15, patients)
        return pairs_of(truth, 50 + slope * (truth - 50) + rng.normal(0, spread, patients))

    whole = of_sums(sums_of(drawn(200_000)), ENDS)
    for _ in range(200):
        found = of_sums(sums_of(drawn(60)), ENDS)
        for name in held:
            value = whole[name].value
            held[name] += not found[name].low <= value <= found[name].high
    known = {n: missed for n, missed in held.items() if not np.isnan(whole[n].value)}
    assert all(missed <= 24 for missed in known.values()), known


def test_half_of_the_patients_give_an_interval_that_holds_the_others_as_promised() -> None:
    rng, covered, widths = np.random.default_rng(3), [], []
    for _ in range(100):
        truth = rng.normal(50, 15, 80)
        pairs = pairs_of(truth, truth + rng.normal(0, 8, 80))
        found = intervals(halves_of(pairs), 100.0, np.ones((1, 80)))
        covered.append(found["interval_coverage"].value)
        widths.append(found["interval_half_width"].value)
    # The (n+1)-th of exchangeable errors: at least 90 %, at most 1/(n+1) more.
    assert COVERAGE - 0.01 <= np.mean(covered) <= COVERAGE + 1 / 41 + 0.01
    assert np.mean(widths) == pytest.approx(8 * 1.645, rel=0.08)


def test_too_few_patients_get_the_whole_range_and_no_false_promise() -> None:
    truth = np.linspace(20, 80, 12)
    found = intervals(halves_of(pairs_of(truth, truth)), 100.0, np.ones((1, 12)))
    assert found["interval_half_width"].value == 100.0
    assert found["interval_coverage"].value == 1.0


def test_a_constant_target_and_a_constant_prediction_say_why_there_is_no_value() -> None:
    task, some = task_with(), rules()
    same, varied = np.full(40, 55.0), np.linspace(20, 80, 40)
    for truth, predicted, hidden in (
        (same, varied, {"r2"}),
        (varied, same, {"calibration_slope", "calibration_intercept"}),
    ):
        scores = scores_of(truth, predicted)
        merged = task.summarise(task.statistics(scores, some), some)
        together = task.exact(scores, np.ones((5, 40)), some)
        for found in (merged, together):
            told = {name for name, one in found.items() if np.isnan(one.value)}
            assert told == hidden
            assert all(found[name].reason for name in told)
    alone = task.exact(scores_of(varied[:1], varied[:1]), np.ones((5, 1)), some)
    assert alone["mae"].value == pytest.approx(0, abs=1e-4)
    assert all(one.reason or not np.isnan(one.value) for one in alone.values())


# --- what may leave ------------------------------------------------------------------------


#: True numbers of 40 patients whose sums would count a few of them, and why.
COUNTED = {
    "a class by another name: its sum is a count of 3": [0] * 37 + [1] * 3,
    "three values, one of them rare": [0] * 20 + [1] * 17 + [2] * 3,
    "nearly all alike: the sum is of the others": [0] * 37 + [5, 17, 42],
}


def check_small_counts() -> None:
    """Refuse sums that tell how many of a few patients have what."""
    for why, truth in COUNTED.items():
        values = np.array(truth, np.float64)
        found = task_with().statistics(scores_of(values, values + 3), rules())
        assert not found.sums["agreement"].any(), f"sums count a few patients: {why}"
        assert not found.cells["fit"].any()
        assert not found.sums["fit"].any()
        assert "withheld" in task_with().summarise(found, rules())["mae"].reason


def test_sums_that_would_count_a_few_patients_are_held_back() -> None:
    check_small_counts()
    for truth in ([0, 1] * 20, [*range(40)], [55] * 40):
        values = np.array(truth, np.float64)
        assert task_with().statistics(scores_of(values, values), rules()).sums["agreement"].any()


def test_sums_by_range_are_not_told_of_numbers_that_many_share() -> None:
    grades = np.repeat(np.arange(10.0), 6)
    found = task_with().statistics(scores_of(grades, grades + 1), rules())
    assert found.sums["agreement"].any()
    assert not found.cells["fit"].any()


@given(seed=st.integers(0, 1000), patients=st.integers(0, 60))
def test_every_range_of_predictions_is_of_enough_patients(seed: int, patients: int) -> None:
    found = made("number").statistics(scored("number", patients, seed), rules())
    counts = found.cells["fit"]
    assert all(count == 0 or count >= 5 for count in counts)
    assert counts.sum() in {0, patients}


@pytest.mark.parametrize("noise", [1.5, 3.0])
def test_intervals_of_noised_errors_hold_the_truth(noise: float) -> None:
    rng = np.random.default_rng(4)

    def drawn(patients: int) -> Pairs:
        truth = rng.normal(50, 18, patients).clip(0, 100)
        predicted = (50 + 0.6 * (truth - 50) + rng.normal(0, 9, patients)).clip(0, 100)
        return pairs_of(truth, predicted)

    whole = exact(drawn(100_000), ENDS, np.ones((1, 100_000)))
    names = ("r2", "mae", "rmse", "bias", "agreement_low", "agreement_high")
    told: dict[str, list[bool]] = {name: [] for name in names}
    for _ in range(100):
        clean = error_histograms(drawn(300))
        cells = {n: c + rng.normal(0, 2 * noise, c.shape) for n, c in clean.cells.items()}
        noised = Statistics(patients=np.array(300.0), cells=cells, sums={}, noise=(2 * noise) ** 2)
        found = metrics_of(noised, ENDS)
        for name in names:
            one = found[name]
            if np.isnan(one.value):
                assert "hides it" in one.reason
            else:
                told[name].append(one.low <= whole[name].value <= one.high)
    assert all(held.count(False) <= 10 for held in told.values()), {
        n: h.count(False) for n, h in told.items()
    }
    assert min(len(told[name]) for name in ("mae", "rmse", "bias")) > 50
