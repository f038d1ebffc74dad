from __future__ import annotations

import pytest

from common.config.run_config import RunConfig, parse_config, without_privacy
from server.planning.forecast import forecast
from server.planning.measuring import measured

CONFIG = parse_config("""
name: measured
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 3, batch_patients: all, optimizer: sgd}
evaluation: {count_noise: 1.5}
privacy: {unit: patient, epsilon: 3.0, delta: 1.0e-5, default_patients: 100}
""").in_force()


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
        (
            without_privacy(CONFIG),
            "Measured by exact counts, by those sites whose policy.metrics is",
        ),
    ],
)
def test_a_plan_says_how_a_run_is_measured_and_what_that_costs(
    config: RunConfig, said: str
) -> None:
    assert said in measured(config)
    assert forecast(config, (), 2).measuring == measured(config)
