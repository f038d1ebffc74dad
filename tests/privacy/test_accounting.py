from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config.run_config import PatientPrivacy, Training
from common.platform.errors import BudgetExceeded, ConfigurationError
from common.privacy.accounting import epsilon_of, rdp_epsilon
from common.privacy.noise_calibration import calibrate, delta_of, make_plan
from common.privacy.plan import Mechanism
from tests.privacy.made_up import mechanism_of

DELTA = 1e-4
#: (sampling rate, steps, noise): from few patients in many steps to all patients in a few.
GRID = [
    (0.2, 500, 4.0),
    (0.2, 500, 1.0),
    (0.5, 100, 2.0),
    (0.1, 1000, 2.0),
    (0.026, 4000, 2.0),
    (0.25, 100, 7.03),
    (0.25, 10, 1.44),
    (0.9, 20, 6.0),
]
FULL = [(15.15, 30), (6.0, 30), (2.74, 30), (100.0, 1), (1.0, 1), (0.3, 2)]


def reference(mechanisms: list[Mechanism], delta: float, interval: float = 1e-4) -> float:
    """Return epsilon by dp-accounting's own PLD accountant, step by step as events."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=interval)
    for m in mechanisms:
        event = GaussianDpEvent(m.noise_multiplier)
        if m.sampling_rate < 1:
            event = PoissonSampledDpEvent(m.sampling_rate, event)
        accountant.compose(event, m.steps)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(("rate", "steps", "noise"), GRID)
def test_epsilon_is_that_of_the_privacy_loss_distribution(
    rate: float, steps: int, noise: float
) -> None:
    history = [mechanism_of(noise, sampling_rate=rate, steps=steps)]
    assert epsilon_of(history, DELTA) == pytest.approx(reference(history, DELTA), rel=0.01)


@pytest.mark.parametrize(("noise", "steps"), FULL)
def test_the_closed_form_of_full_batches_is_that_of_the_privacy_loss_distribution(
    noise: float, steps: int
) -> None:
    history = [mechanism_of(noise, steps=steps)]
    assert epsilon_of(history, DELTA) == pytest.approx(reference(history, DELTA), rel=1e-3)


@pytest.mark.parametrize(("rate", "steps", "noise"), GRID)
def test_renyi_bounds_the_binding_epsilon_from_above_and_closely(
    rate: float, steps: int, noise: float
) -> None:
    history = [mechanism_of(noise, sampling_rate=rate, steps=steps)]
    binding, bound = epsilon_of(history, DELTA), rdp_epsilon(history, DELTA)
    assert binding <= bound <= 1.25 * binding


@settings(max_examples=15, deadline=None)
@given(
    noise=st.floats(0.8, 20.0),
    rate=st.sampled_from([0.1, 0.5, 1.0]),
    steps=st.integers(1, 60),
    more=st.integers(1, 60),
)
def test_more_steps_less_noise_more_sampling_never_cost_less(
    noise: float, rate: float, steps: int, more: int
) -> None:
    def cost(sigma: float, q: float, count: int) -> float:
        return epsilon_of([mechanism_of(sigma, sampling_rate=q, steps=count)], DELTA)

    base = cost(noise, rate, steps)
    assert cost(noise, rate, steps + more) >= base
    assert cost(noise * 0.9, rate, steps) >= base
    assert cost(noise, min(1.0, 1.1 * rate), steps) >= base
    history = [mechanism_of(noise, sampling_rate=rate, steps=steps)]
    assert epsilon_of(history, DELTA / 10) >= base


@pytest.mark.slow
def test_sixty_different_runs_on_the_same_patients_all_count() -> None:
    draw = random.Random(0)
    history = [
        mechanism_of(
            round(draw.uniform(8, 16), 1),
            sampling_rate=draw.choice([0.25, 0.5, 1.0]),
            steps=draw.choice([10, 20, 30]),
        )
        for _ in range(60)
    ]
    found = epsilon_of(history, DELTA)
    assert found == pytest.approx(reference(history, DELTA, 1e-3), rel=0.01)
    assert found <= rdp_epsilon(history, DELTA)
    assert found > 3 * epsilon_of(history[-1:], DELTA)


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.integers(0, 12), min_size=1, max_size=8), rate=st.sampled_from([0.3, 1.0]))
def test_a_run_cut_into_rounds_composes_to_the_run(parts: list[int], rate: float) -> None:
    rounds = [mechanism_of(4.0, sampling_rate=rate, steps=n) for n in parts]
    whole = mechanism_of(4.0, sampling_rate=rate, steps=sum(parts))
    assert epsilon_of(rounds, DELTA) == pytest.approx(epsilon_of([whole], DELTA), rel=1e-9)


def test_nothing_spent_is_zero() -> None:
    assert epsilon_of([], DELTA) == 0.0
    assert epsilon_of([mechanism_of(1.0, steps=0)], DELTA) == 0.0


@settings(max_examples=25, deadline=None)
@given(epsilon=st.floats(0.05, 20.0), steps=st.integers(1, 500), delta=st.floats(1e-7, 1e-2))
def test_full_batch_calibration_meets_the_target_from_below(
    epsilon: float, steps: int, delta: float
) -> None:
    sigma = calibrate(epsilon, delta, 1.0, steps)
    found = epsilon_of([mechanism_of(sigma, steps=steps)], delta)
    assert found <= epsilon
    assert found == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "steps", "epsilon", "noise"),
    [(0.25, 100, 1.0, 7.03), (0.25, 100, 3.0, 2.89), (0.25, 100, 8.0, 1.44)],
)
def test_sampled_calibration_meets_the_target_from_below(
    rate: float, steps: int, epsilon: float, noise: float
) -> None:
    sigma = calibrate(epsilon, 1 / 2000, rate, steps)
    found = epsilon_of([mechanism_of(sigma, sampling_rate=rate, steps=steps)], 1 / 2000)
    assert 0.99 * epsilon <= found <= epsilon
    assert sigma == pytest.approx(noise, rel=0.01)


def test_calibration_counts_what_is_spent_and_refuses_when_nothing_is_left() -> None:
    history = [mechanism_of(10.0, steps=20)]
    sigma = calibrate(3.0, DELTA, 1.0, 10, history)
    assert sigma > calibrate(3.0, DELTA, 1.0, 10)
    assert epsilon_of([*history, mechanism_of(sigma, steps=10)], DELTA) <= 3.0
    with pytest.raises(BudgetExceeded, match="nothing is left"):
        calibrate(epsilon_of(history, DELTA), DELTA, 1.0, 10, history)


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_a_plan_promises_the_runs_epsilon_over_all_its_rounds(rate: float) -> None:
    privacy = PatientPrivacy(unit="patient", epsilon=3.0, sampling_rate=rate)
    plan = make_plan(privacy, Training(rounds=20, local_steps=2), 80, 16.0, simulated=False)
    assert plan.mechanism.steps == 40
    assert plan.delta == delta_of(privacy, 80) == 1e-5
    assert 0.99 * 3.0 <= plan.epsilon <= 3.0
    rounds = [mechanism_of(plan.mechanism.noise_multiplier, sampling_rate=rate, steps=2)] * 20
    assert epsilon_of(rounds, plan.delta) <= 3.0
    assert plan.mechanism.divisor == 16.0


def test_a_plan_tells_epsilon_at_the_common_delta_too() -> None:
    privacy = PatientPrivacy(unit="patient", epsilon=3.0, delta="per_site")
    plan = make_plan(privacy, Training(rounds=20), 80, 16.0, simulated=False)
    assert plan.delta == pytest.approx(1 / 800)
    assert plan.common_epsilon == epsilon_of([plan.mechanism], 1e-5)
    assert plan.common_epsilon is not None
    assert plan.common_epsilon > 3.5


def test_delta_is_the_given_one_where_one_is_given() -> None:
    assert delta_of(PatientPrivacy(unit="patient", epsilon=1.0, delta=1e-6), 10) == 1e-6


@pytest.mark.parametrize("unit", ["image", "record", "site"])
def test_privacy_by_image_cannot_be_asked_for(unit: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match="patient"):
        PatientPrivacy.model_validate({"unit": unit, "epsilon": 1.0})
    assert Mechanism.__dataclass_fields__["unit"].default == "patient"


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1.0, 5.0, 40.0])
def test_gaussian_epsilon_solves_its_equation_also_where_tails_underflow(mu: float) -> None:
    from dp_accounting.pld import privacy_loss_distribution

    found = epsilon_of([mechanism_of(1 / mu, steps=1)], 1e-5)
    exact = privacy_loss_distribution.from_gaussian_mechanism(
        1 / mu, value_discretization_interval=min(1e-3, mu / 100)
    ).get_epsilon_for_delta(1e-5)
    assert found == pytest.approx(exact, rel=2e-3, abs=1e-6)
    assert math.isfinite(found)


def test_our_epsilon_agrees_with_opacus_prv_accountant() -> None:
    from opacus.accountants import PRVAccountant

    for rate, steps, noise in [(0.2, 500, 4.0), (0.25, 100, 2.89), (0.5, 100, 6.0)]:
        accountant = PRVAccountant()
        accountant.history = [(noise, rate, steps)]
        theirs = accountant.get_epsilon(DELTA)
        ours = epsilon_of([mechanism_of(noise, sampling_rate=rate, steps=steps)], DELTA)
        assert ours == pytest.approx(theirs, rel=0.01)
