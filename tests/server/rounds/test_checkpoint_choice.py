from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.measured_rounds import is_validated
from common.metrics.statistics import Statistics
from common.platform.errors import ConfigurationError
from common.tasks import task_of
from server.rounds.checkpoint_choice import check_selection, is_better, score
from server.rounds.early_stopping import should_stop
from tests.server.hospitals import config_of
from tests.server.rounds.test_update_admission import reports_of


def test_the_loss_is_the_mean_over_all_patients() -> None:
    config = config_of()
    merged = Statistics(patients=np.array(40.0), cells={}, sums={"loss": np.array(10.0)})
    assert score(config, task_of(config.task), merged) == 0.25


def test_without_released_patients_there_is_no_score() -> None:
    config = config_of()
    merged = Statistics(patients=np.array(0.0), cells={}, sums={"loss": np.array(0.0)})
    assert math.isnan(score(config, task_of(config.task), merged))


def test_by_metric_a_higher_metric_is_a_lower_score() -> None:
    config = config_of("selection: {by: metric}")
    _, (report, *_) = reports_of()
    task = task_of(config.task)
    found = score(config, task, report.statistics)
    assert found == -task.summarise(report.statistics, config.evaluation)[task.metric].value


@given(st.floats(allow_nan=True), st.none() | st.floats(-1e6, 1e6))
def test_only_a_finite_and_lower_score_is_better(now: float, best: float | None) -> None:
    assert is_better(now, best) == (math.isfinite(now) and (best is None or now < best))


def test_rounds_are_validated_as_often_as_configured_and_always_at_the_end() -> None:
    config = config_of("selection: {every: 3}", rounds=7)
    assert [n for n in range(1, 8) if is_validated(config, n)] == [3, 6, 7]
    last = config_of("selection: {rule: last}", rounds=7)
    assert not any(is_validated(last, n) for n in range(1, 8))


def test_patience_counts_rounds_since_the_best() -> None:
    config = config_of("selection: {patience: 2}", rounds=9)
    assert [should_stop(config, n, best_round=3) for n in (3, 4, 5)] == [False, False, True]
    assert not should_stop(config, 5, best_round=0)  # nothing scored yet
    assert not should_stop(config_of(rounds=9), 9, best_round=1)


def test_choosing_by_a_loss_that_never_leaves_the_sites_is_refused() -> None:
    noisy = "evaluation: {count_noise: 2.0}"
    with pytest.raises(ConfigurationError, match=r"selection\.by=loss"):
        check_selection(config_of(noisy))
    check_selection(config_of(f"{noisy}\nselection: {{by: metric}}"))
    check_selection(config_of(f"{noisy}\nselection: {{rule: last}}"))
