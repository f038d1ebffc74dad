from __future__ import annotations

import pytest

from common.privacy.signal import prospect
from tests.privacy.made_up import mechanism_of


def test_noise_is_measured_against_the_longest_sum_that_there_could_be() -> None:
    sites = [mechanism_of(8.0, steps=60, divisor=n) for n in (120.0, 190.0, 160.0, 80.0)]
    found = prospect(sites, 1281)
    assert found is not None
    # sigma sqrt(sites x steps x values) over patients x steps
    assert found.noise_to_signal == pytest.approx(8.0 * (4 * 60 * 1281) ** 0.5 / (550 * 60))
    assert found.words.startswith("Noise is 0.13 of the largest signal")


def test_more_values_fewer_patients_and_more_noise_leave_less() -> None:
    def ratio(sigma: float, divisor: float, values: int) -> float:
        found = prospect([mechanism_of(sigma, divisor=divisor)], values)
        assert found is not None
        return found.noise_to_signal

    assert ratio(2.0, 100.0, 1000) == pytest.approx(2 * ratio(1.0, 100.0, 1000))
    assert ratio(1.0, 50.0, 1000) == pytest.approx(2 * ratio(1.0, 100.0, 1000))
    assert ratio(1.0, 100.0, 4000) == pytest.approx(2 * ratio(1.0, 100.0, 1000))


def test_a_network_whose_noise_drowns_everything_is_said_to_be_so() -> None:
    drowned = prospect([mechanism_of(10.0, steps=6, divisor=40.0)], 1_206_929)
    assert drowned is not None
    assert drowned.words.startswith("Noise exceeds signal: 1.1e+02 of the largest signal")
    assert prospect([], 10) is None
