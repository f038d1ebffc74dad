from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config.run_config import RunConfig, ServerOptimizer
from common.data.weights import Weights
from common.platform.errors import ConfigurationError, RunFailed
from server.aggregation.server_optimizer import init_server, step_server
from server.rounds.run_rounds import RunRecords, run_rounds, train_round
from tests.server.hospitals import FakeSites, config_of, start


def flower(strategy: str, arguments: str = "") -> RunConfig:
    return config_of(
        f"aggregation: {{rule: flower, strategy: {strategy}, arguments: {{{arguments}}},"
        " weights: {east: 2.0, north: 0.5}}"
    )


def ours(rule: str) -> RunConfig:
    return config_of(f"aggregation: {{{rule}, weights: {{east: 2.0, north: 0.5}}}}")


def final(config: RunConfig) -> Weights:
    aggregator, state = start(config)
    return run_rounds(config, FakeSites(), aggregator, state, RunRecords()).weights


def assert_close(left: Weights, right: Weights) -> None:
    for name in left:
        np.testing.assert_allclose(left[name].numpy(), right[name].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "arguments", "rule"),
    [
        ("FedAvg", "", "rule: mean"),
        ("flwr.serverapp.strategy.FedAvg", "", "rule: mean"),
        ("FedAvgM", "server_momentum: 0.9", "server: {kind: fedavgm, beta1: 0.9}"),
        ("FedMedian", "", "rule: median"),
        ("FedTrimmedAvg", "beta: 0.25", "rule: trimmed_mean, trim_fraction: 0.25"),
        ("Krum", "num_malicious_nodes: 1", "rule: krum, faulty_sites: 1"),
    ],
)
def test_flowers_strategies_end_a_run_where_ours_do(
    strategy: str, arguments: str, rule: str
) -> None:
    assert_close(final(flower(strategy, arguments)), final(ours(rule)))


def test_flowers_fedadam_is_ours_with_its_own_first_moment_and_corrected_rate() -> None:
    # Flower starts v at 0, not tau^2, and corrects the rate for bias, one round ahead;
    # algorithm 2 of Reddi et al. does neither.
    eta, beta1, beta2 = 0.1, 0.9, 0.99
    config = flower("FedAdam", f"eta: {eta}")
    aggregator, state = start(config)
    _, twin = start(ours("rule: mean"))
    moments = init_server(ServerOptimizer(kind="fedadam"), twin.weights)
    moments |= {n: torch.zeros_like(v) for n, v in moments.items()}
    weights = twin.weights
    done = run_rounds(config, FakeSites(), aggregator, state, RunRecords())
    for number in range(1, 5):
        rate = eta * np.sqrt(1 - beta2 ** (number + 1)) / (1 - beta1 ** (number + 1))
        one = mean_of_one_round(ours("rule: mean"), weights)
        change = {n: one[n] - weights[n] for n in weights}
        step = ServerOptimizer(kind="fedadam", learning_rate=float(rate))
        weights, moments = step_server(step, weights, change, moments)
    assert_close(done.weights, weights)


def mean_of_one_round(config: RunConfig, weights: Weights) -> Weights:
    """Return the mean of the sites' weights after one round from these."""
    aggregator, state = start(config)
    return train_round(config, FakeSites(), aggregator, replace(state, weights=weights)).weights


@pytest.mark.parametrize(
    "strategy",
    [
        "FedAdam",
        "FedYogi",
        "FedAdagrad",
        "MultiKrum",
        pytest.param("Bulyan", marks=pytest.mark.slow),
    ],
)
def test_other_strategies_of_flower_run_too(strategy: str) -> None:
    found = final(flower(strategy))
    assert all(torch.isfinite(value).all() for value in found.values())
    assert all(value.dtype == torch.float32 for value in found.values())


def test_what_a_strategy_remembers_is_part_of_the_state() -> None:
    config = flower("FedAdam")
    aggregator, state = start(config)
    state = run_rounds(config, FakeSites(), aggregator, state, RunRecords())
    assert "flower/m_t:dict/weight" in state.server
    assert state.server["flower/m_t:dict/weight"].shape == (1, 4)


def test_the_global_generators_are_left_alone() -> None:
    final(flower("FedAvg"))
    random.random()  # elsewhere than where a run before may have left it
    np.random.random()  # noqa: NPY002
    before = (random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    final(flower("FedAvg"))
    assert (random.getstate(), str(np.random.get_state())) == before  # noqa: NPY002


WRONG: list[tuple[Callable[[], RunConfig], str]] = [
    (lambda: flower("FedAvgg"), "cannot be found"),
    (lambda: flower("no.such.module.Strategy"), "cannot be found"),
    (lambda: flower("FedAvg", "fraction: 1"), "do not fit FedAvg"),
    (lambda: flower("collections.OrderedDict"), "is no flwr.serverapp.strategy.Strategy"),
    (lambda: flower("Result"), "is no flwr.serverapp.strategy.Strategy"),
    (lambda: ours("rule: flower, strategy: FedAvg, server: {kind: fedadam}"), "steps itself"),
]


@pytest.mark.parametrize(("config", "words"), WRONG)
def test_a_strategy_that_cannot_be_made_is_refused_before_the_first_round(
    config: Callable[[], RunConfig], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        start(config())


def test_a_strategy_that_wants_its_sites_to_do_something_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"proximal-mu.*training.proximal"):
        final(flower("FedProx", "proximal_mu: 0.1"))


def test_a_strategy_that_needs_what_sites_do_not_tell_fails_in_its_own_words() -> None:
    with pytest.raises(RunFailed, match=r"QFedAvg failed in round 1.*train_loss"):
        final(flower("QFedAvg", "client_learning_rate: 0.1"))


def test_a_strategy_that_waits_for_more_sites_fails_instead_of_waiting() -> None:
    with pytest.raises(RunFailed, match="waits for more than the 4 sites"):
        final(flower("FedAvg", "min_available_nodes: 9"))
