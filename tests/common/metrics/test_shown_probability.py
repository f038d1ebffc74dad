from __future__ import annotations

import math

import pytest

from common.metrics.shown_probability import shown_probability, shown_share


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "below 1 %"),
        (1e-9, "below 1 %"),
        (0.0099999, "below 1 %"),
        (0.01, "0.01"),
        (0.5, "0.50"),
        (0.99, "0.99"),
        (0.9900001, "above 99 %"),
        (1.0, "above 99 %"),
    ],
)
def test_no_probability_is_shown_as_certain(value: float, shown: str) -> None:
    assert shown_probability(value, 2) == shown


def test_what_is_no_probability_is_shown_as_it_is() -> None:
    assert shown_probability(-0.001, 3) == "-0.001"
    assert shown_probability(1.5, 1) == "1.5"
    assert shown_probability(math.nan) == "nan"


def test_a_share_is_in_percent() -> None:
    assert [shown_share(one) for one in (0.004, 0.25, 0.999)] == ["below 1 %", "25%", "above 99 %"]
    assert shown_share(0.25, 1) == "25.0%"
