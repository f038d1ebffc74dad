from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from common.config.run_config import RunConfig, parse_config, without_privacy
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate
from common.privacy.measuring import is_told
from server.aggregation.rules import aggregator_of
from server.planning.forecast import forecast
from server.planning.measuring import measure_tests, measured
from server.rounds.run_rounds import begin

CONFIG = parse_config("""
name: measured
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 3, batch_patients: all, optimizer: sgd}
evaluation: {count_noise: 1.5}
privacy: {unit: patient, epsilon: 3.0, delta: 1.0e-5, default_patients: 100}
""").in_force()

NOT_PRIVATE = without_privacy(CONFIG)


def with_noise(noise: float, config: RunConfig = CONFIG) -> RunConfig:
    rules = config.evaluation.model_copy(update={"count_noise": noise})
    return config.model_copy(update={"evaluation": rules})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            CONFIG,
            "Measured once, at its end, with noise of 1.5 patients on each count: epsilon 2.75",
        ),
        (with_noise(0.0), "Not measured between hospitals: evaluation.count_noise is 0."),
        (with_noise(1.0), "would cost each test patient epsilon 4.38 at delta 1e-05, more than"),
        (with_noise(1e-9), "Not measured between hospitals"),
        (NOT_PRIVATE, "Measured by exact counts, by those sites whose policy.metrics is"),
    ],
)
def test_a_plan_says_how_a_run_is_measured_and_what_that_costs(
    config: RunConfig, said: str
) -> None:
    assert said in measured(config)
    assert forecast(config, (), 2).measuring == measured(config)


@pytest.mark.parametrize(
    ("config", "asks"), [(CONFIG, 1), (with_noise(0.0), 0), (with_noise(1.0), 0), (NOT_PRIVATE, 1)]
)
def test_nobody_is_asked_to_measure_what_every_site_would_refuse(
    config: RunConfig, asks: int
) -> None:
    class Sites:
        def available(self) -> tuple[str, ...]:
            return ("east", "west")

        def evaluate(
            self, request: EvaluationRequest, sites: Sequence[str]
        ) -> Iterator[SiteReport | Refusal]:
            asked.append((request.split, tuple(sites)))
            return iter(())

        def train(self, *_asked: object) -> Iterator[SiteUpdate | Refusal]:
            raise AssertionError

    asked: list[tuple[str, tuple[str, ...]]] = []
    state = begin(config, "run-1", 0, aggregator_of(config.aggregation, 2))
    told = measure_tests(config, Sites(), state)
    assert asked == [("test", ("east", "west"))] * asks
    assert not told.metrics


def test_with_a_delta_of_each_sites_own_whoever_can_tell_is_asked() -> None:
    """The smallest cohort has the largest delta, and so the smallest epsilon."""
    privacy = CONFIG.privacy
    assert privacy != "none"
    dear = with_noise(1.3)
    own = privacy.model_copy(update={"delta": "per_site"})
    assert not is_told(dear)
    assert is_told(dear.model_copy(update={"privacy": own}))
