from __future__ import annotations

import math

import pytest
import torch

from client.privacy import clip_and_noise
from common.privacy.accounting import epsilon_of
from common.privacy.noise import SimulatedNoise
from common.privacy.noise_calibration import calibrate
from common.privacy.plan import PrivacyPlan
from simulations.comparison.privacy_audit import (
    canaries,
    correct_guesses,
    epsilon_at_least,
    scores,
    train,
)
from tests.privacy.made_up import Silence, mechanism_of, plan_of

COUNT, STEPS, DELTA = 4000, 10, 1e-5


def plan_for(epsilon: float, weaker: float = 1.0) -> PrivacyPlan:
    sigma = calibrate(epsilon, DELTA, 1.0, STEPS) / weaker
    return plan_of(mechanism_of(sigma, steps=STEPS, clip_norm=0.1, divisor=500.0))


def audited(plan: PrivacyPlan, seed: int = 0) -> float:
    """Return the epsilon that one run of the pipeline has for certain."""
    chosen = canaries(COUNT, seed)
    updates = train(chosen.patients, plan, SimulatedNoise("audit", seed), COUNT)
    right = correct_guesses(scores(updates), chosen.included)
    return epsilon_at_least(right, COUNT, DELTA)


@pytest.mark.parametrize("claimed", [1.0, 4.0, 8.0])
def test_a_sound_pipeline_stays_below_its_claim(claimed: float) -> None:
    found = audited(plan_for(claimed))
    assert 0.2 * claimed < found < claimed


@pytest.mark.parametrize("claimed", [1.0, 4.0])
def test_a_third_of_the_noise_is_found_out(claimed: float) -> None:
    assert audited(plan_for(claimed, weaker=3.0)) > claimed


def test_lost_clipping_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(norm: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.ones_like(norm)

    monkeypatch.setattr(clip_and_noise, "clip_factor", unclipped)
    assert audited(plan_for(4.0)) > 4.0


def test_noise_from_a_known_seed_is_found_out() -> None:
    chosen, plan = canaries(COUNT, 0), plan_for(4.0)
    nobody = canaries(1, 1).patients  # who is not there adds nothing
    empty = train(
        type(nobody)(
            image=torch.zeros(0, 0),
            table=torch.zeros(0, COUNT),
            target=torch.zeros(0),
            patient=torch.zeros(0, dtype=torch.int64),
            pseudonyms=(),
        ),
        plan,
        SimulatedNoise("public"),
        COUNT,
    )
    updates = train(chosen.patients, plan, SimulatedNoise("public"), COUNT)
    known = [update - noise for update, noise in zip(updates, empty, strict=True)]
    right = correct_guesses(scores(known), chosen.included)
    assert epsilon_at_least(right, COUNT, DELTA) > 4.0


def test_no_noise_at_all_is_more_than_epsilon_four() -> None:
    # Fewer than half of these are in, so without noise the median is that of those who are out.
    count = 1000
    chosen = canaries(count, 0)
    updates = train(chosen.patients, plan_for(4.0), Silence(), count)
    right = correct_guesses(scores(updates), chosen.included)
    assert epsilon_at_least(right, count, DELTA) > 4.0


def test_guesses_no_better_than_a_coin_say_nothing() -> None:
    assert epsilon_at_least(COUNT // 2, COUNT, DELTA) == 0.0


def test_more_right_guesses_never_say_less() -> None:
    found = [epsilon_at_least(right, 200, DELTA) for right in range(100, 201, 10)]
    assert found == sorted(found)
    assert math.isfinite(found[-1])


def test_the_bound_is_below_the_truth_of_gaussian_canaries_in_nearly_all_runs() -> None:
    draw, mu, above = torch.Generator().manual_seed(0), 1.0, 0
    true = epsilon_of([mechanism_of(1 / mu, steps=1)], DELTA)
    for _ in range(40):
        included = torch.rand(500, generator=draw) < 0.5
        score = torch.randn(500, generator=draw) + mu * included
        above += epsilon_at_least(correct_guesses(score, included), 500, DELTA) > true
    assert above <= 4
