"""What it costs test patients that a private run is measured between hospitals.

A run tells its sites' test patients no more than it agreed to for training patients: where the
noise on counts is too small for that, sites refuse to measure, so nobody is asked to.
"""

from __future__ import annotations

import math

from common.config.measured_rounds import evaluations
from common.config.privacy import COMMON_DELTA
from common.config.run_config import RunConfig
from common.privacy.accounting import epsilon_of
from common.privacy.plan import count_mechanism


def measuring_epsilon(config: RunConfig, delta: float = COMMON_DELTA) -> float:
    """Return the epsilon of each test patient, at `delta`, in a run that noises its counts."""
    noise, times = config.evaluation.count_noise, evaluations(config, "test")
    return epsilon_of([count_mechanism(math.sqrt(config.noised_rows), noise)] * times, delta)


def largest_delta(config: RunConfig) -> float:
    """Return the largest delta that a site of a private run may have."""
    assert config.privacy != "none"  # noqa: S101 - whoever calls has asked
    delta = config.privacy.delta
    return 0.1 / config.cohort.smallest_cohort if delta == "per_site" else delta


def is_told(config: RunConfig) -> bool:
    """Return whether any site may tell how good a run's model is: else nobody is asked."""
    if config.privacy == "none":
        return True
    if not config.evaluation.count_noise > 0:
        return False
    return measuring_epsilon(config, largest_delta(config)) <= config.privacy.epsilon
