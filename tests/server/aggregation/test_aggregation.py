from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.algorithms.scaffold import next_control, next_server_control
from common.config.run_config import Aggregation, ServerOptimizer
from common.data.weights import Weights
from common.messages.wire import SiteUpdate
from server.aggregation.rules import aggregator_of, averaged, control_of
from server.aggregation.server_optimizer import init_server, step_server
from tests.server.hospitals import same_bits

NAMES = ("a", "b", "c", "d", "e")
WEIGHTS = {"kernel": torch.zeros(2, 3), "bias": torch.zeros(3)}


def updates(seed: int, sites: int, *, control: bool = False) -> list[SiteUpdate]:
    draw = torch.Generator().manual_seed(seed)

    def values() -> Weights:
        return {n: torch.randn(v.shape, generator=draw) for n, v in WEIGHTS.items()}

    return [
        SiteUpdate(
            run="r",
            round=1,
            site=name,
            delta=values(),
            steps=1,
            control_delta=values() if control else None,
        )
        for name in NAMES[:sites]
    ]


def combined(config: Aggregation, given_updates: list[SiteUpdate], sites: int = 5) -> Weights:
    aggregator = aggregator_of(config, sites)
    gathering = aggregator.begin(WEIGHTS)
    for update in given_updates:
        aggregator.add(gathering, update)
    return aggregator.finish(gathering, WEIGHTS, aggregator.init(WEIGHTS), 1)[0]


def close(left: Weights, right: Weights, tolerance: float = 1e-6) -> bool:
    return all(torch.allclose(left[n], right[n], rtol=tolerance, atol=tolerance) for n in left)


# --- the mean -------------------------------------------------------------------------------

public_weights = st.dictionaries(st.sampled_from(NAMES), st.floats(0.1, 10), max_size=5)


@given(st.integers(0, 2**31), st.integers(1, 5), public_weights)
def test_the_streamed_mean_is_numpys_weighted_average(
    seed: int, sites: int, weights: dict[str, float]
) -> None:
    given_updates = updates(seed, sites)
    config = Aggregation(weights=weights, default_weight=2.0)
    found = combined(config, given_updates)
    shares = [weights.get(u.site, 2.0) for u in given_updates]
    for name in WEIGHTS:
        stack = np.stack([u.delta[name].double().numpy() for u in given_updates])
        np.testing.assert_allclose(
            found[name].numpy(), np.average(stack, axis=0, weights=shares), rtol=1e-5, atol=1e-6
        )


@given(st.integers(0, 2**31), st.integers(1, 5), public_weights)
def test_sites_that_agree_are_not_changed_by_their_weights(
    seed: int, sites: int, weights: dict[str, float]
) -> None:
    same = updates(seed, 1)[0].delta
    agreeing = [
        SiteUpdate(run="r", round=1, site=name, delta=same, steps=1) for name in NAMES[:sites]
    ]
    assert close(combined(Aggregation(weights=weights), agreeing), same, 1e-5)


@given(st.permutations(range(5)))
@pytest.mark.parametrize("rule", ["mean", "median", "trimmed_mean", "krum", "multi_krum"])
def test_no_rule_depends_on_the_order_beyond_rounding(rule: str, order: list[int]) -> None:
    given_updates = updates(3, 5)
    config = Aggregation.model_validate({"rule": rule})
    shuffled = combined(config, [given_updates[i] for i in order])
    assert close(combined(config, given_updates), shuffled)


def test_no_rule_changes_the_weights_or_updates_that_it_was_given() -> None:
    for rule in ("mean", "scaffold", "median", "trimmed_mean", "krum", "multi_krum"):
        given_updates, same = updates(1, 5, control=True), updates(1, 5, control=True)
        combined(Aggregation.model_validate({"rule": rule}), given_updates)
        assert all(not value.any() for value in WEIGHTS.values())
        for one, other in zip(given_updates, same, strict=True):
            assert same_bits(one.delta, other.delta)


# --- server optimisers (Reddi et al. 2021, algorithm 2; Hsu et al. 2019) --------------------


def slow_twin(
    kind: str, changes: list[np.ndarray], rate: float, beta1: float, beta2: float, tau: float
) -> np.ndarray:
    """Return the weights after the changes, one number at a time, as the papers write it."""
    x = np.zeros_like(changes[0])
    for i in range(len(x)):
        m, v = 0.0, tau**2
        for change in changes:
            d = change[i]
            if kind == "sgd":
                x[i] += rate * d
            elif kind == "fedavgm":
                m = beta1 * m + d
                x[i] += rate * m
            else:
                m = beta1 * m + (1 - beta1) * d
                if kind == "fedadam":
                    v = beta2 * v + (1 - beta2) * d**2
                else:
                    v = v - (1 - beta2) * d**2 * np.sign(v - d**2)
                x[i] += rate * m / (np.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("kind", ["sgd", "fedavgm", "fedadam", "fedyogi"])
@given(
    seed=st.integers(0, 2**31),
    rounds=st.integers(1, 5),
    rate=st.floats(0.01, 2),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    tau=st.floats(1e-3, 1),
)
def test_server_optimisers_do_what_the_papers_write(
    kind: str, seed: int, rounds: int, rate: float, beta1: float, beta2: float, tau: float
) -> None:
    config = ServerOptimizer.model_validate(
        {"kind": kind, "learning_rate": rate, "beta1": beta1, "beta2": beta2, "tau": tau}
    )
    draw = torch.Generator().manual_seed(seed)
    changes = [torch.randn(4, generator=draw, dtype=torch.float64) for _ in range(rounds)]
    weights = {"w": torch.zeros(4, dtype=torch.float64)}
    state = init_server(config, weights)
    for change in changes:
        weights, state = step_server(config, weights, {"w": change}, state)
    expected = slow_twin(kind, [c.numpy() for c in changes], rate, beta1, beta2, tau)
    np.testing.assert_allclose(weights["w"].numpy(), expected, rtol=1e-9, atol=1e-12)


# --- SCAFFOLD (Karimireddy et al. 2020, algorithm 1, option II) ------------------------------


def test_scaffold_moves_the_controls_by_the_share_of_sites_that_answered() -> None:
    given_updates = updates(5, 2, control=True)
    aggregator = aggregator_of(Aggregation(rule="scaffold"), 8)
    gathering = aggregator.begin(WEIGHTS)
    for update in given_updates:
        aggregator.add(gathering, update)
    after, server = aggregator.finish(gathering, WEIGHTS, aggregator.init(WEIGHTS), 1)
    for name in WEIGHTS:
        deltas = np.stack([u.delta[name].numpy() for u in given_updates])
        changes = np.stack(
            [u.control_delta[name].numpy() for u in given_updates if u.control_delta]
        )
        np.testing.assert_allclose(after[name].numpy(), deltas.mean(0), rtol=1e-6)
        # c + 1/N sum of the changes, N all sites of the run: 2 of 8 answered.
        np.testing.assert_allclose(control_of(server)[name].numpy(), changes.sum(0) / 8, rtol=1e-6)


def test_scaffolds_control_of_a_site_is_its_mean_gradient_over_the_steps() -> None:
    # y = x - rate * sum(g_k + c - c_i), so c_i - c + (x - y) / (K rate) = mean(g_k).
    rate, gradients = 0.1, torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.0]])
    own, server = {"w": torch.tensor([0.3, 0.4])}, {"w": torch.tensor([-0.2, 0.1])}
    delta = {"w": -rate * (gradients + server["w"] - own["w"]).sum(0)}
    found = next_control(own, server, delta, rate * len(gradients))
    assert torch.allclose(found["w"], gradients.mean(0), atol=1e-6)
    assert torch.equal(
        next_server_control(server, {"w": torch.ones(2)}, 0.5)["w"], server["w"] + 0.5
    )


# --- the average over rounds ----------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(1, 12), st.floats(0.05, 0.98))
def test_the_average_is_the_weighted_mean_of_the_rounds_so_far(
    seed: int, rounds: int, keep: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    seen = [torch.randn(3, generator=draw, dtype=torch.float64) for _ in range(rounds)]
    average: Weights = {}
    for number, weights in enumerate(seen, 1):
        average = averaged(average, {"w": weights}, keep, number)
    shares = [keep ** (rounds - number) for number in range(1, rounds + 1)]
    expected = np.average(np.stack([w.numpy() for w in seen]), axis=0, weights=shares)
    np.testing.assert_allclose(average["w"].numpy(), expected, rtol=1e-9, atol=1e-9)
