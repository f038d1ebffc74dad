from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.metrics.small_cells import withhold_small_cells
from common.metrics.statistics import Statistics, count_sensitivity, merge, with_count_noise

COUNTS = st.lists(st.integers(0, 30), min_size=4, max_size=4)


@st.composite
def statistics(draw: st.DrawFn) -> Statistics:
    cells, sums = draw(COUNTS), draw(COUNTS)
    # Whole sums: floating-point addition is associative for them.
    return Statistics(
        patients=np.array(float(draw(st.integers(0, 99)))),
        cells={"score": np.array(cells, np.float64).reshape(2, 2)},
        sums={"loss": np.array(float(sums[0])), "value": np.array(sums, np.float64)},
    )


def same(one: Statistics, other: Statistics) -> bool:
    return one.to_json() == other.to_json()


class Drawn:
    """Noise that can be repeated, for counting on it."""

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return standard_deviation * torch.randn(shape, generator=generator, dtype=torch.float64)


@given(statistics(), statistics(), statistics())
def test_merging_is_associative_and_commutative(
    a: Statistics, b: Statistics, c: Statistics
) -> None:
    assert same(merge([merge([a, b]), c]), merge([a, merge([b, c])]))
    assert same(merge([a, b]), merge([b, a]))
    assert same(merge([a]), a)


@given(statistics())
def test_json_gives_back_what_was_written(part: Statistics) -> None:
    again = Statistics.from_json(json.loads(json.dumps(part.to_json())))
    assert same(again, part)
    assert all(again.cells[name].shape == value.shape for name, value in part.cells.items())


@pytest.mark.parametrize(
    "content",
    [
        {"patients": 1.0, "cells": {}},
        {"patients": 1.0, "cells": [], "sums": {}},
        {"patients": "many", "cells": {}, "sums": {}},
        {"patients": 1.0, "cells": {"a": [[1], [1, 2]]}, "sums": {}},
    ],
)
def test_content_that_does_not_fit_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"statistics|expected numbers"):
        Statistics.from_json(content)


def test_statistics_of_different_kinds_or_none_are_not_merged() -> None:
    one = Statistics(patients=np.array(5.0), cells={"a": np.zeros(2)}, sums={})
    other = Statistics(patients=np.array(5.0), cells={"a": np.zeros(3)}, sums={})
    with pytest.raises(ValueError, match="different kinds"):
        merge([one, other])
    with pytest.raises(ValueError, match="no statistics"):
        merge([])


@given(statistics(), st.integers(1, 12))
def test_no_small_count_is_left_and_few_patients_leave_nothing(
    part: Statistics, smallest: int
) -> None:
    left = withhold_small_cells(part, smallest)
    for value in left.cells.values():
        assert ((value == 0) | (value >= smallest)).all()
    if part.patients < smallest:
        assert float(left.patients) == 0
        assert all((value == 0).all() for value in left.sums.values())
    else:
        assert all((left.sums[name] == value).all() for name, value in part.sums.items())


def test_noise_is_on_every_count_and_no_sum_is_left() -> None:
    part = Statistics(
        patients=np.array(40.0), cells={"a": np.full((2, 5000), 7.0)}, sums={"loss": np.array(3.0)}
    )
    noisy = with_count_noise(part, 2.0, Drawn())
    assert float(noisy.patients) == pytest.approx(noisy.cells["a"].sum() / 2)
    assert 1.95 < (noisy.cells["a"] - 7.0).std() < 2.05
    assert (noisy.cells["a"] % 2.0**-10 == 0).all(), "low bits would tell the count"
    assert not noisy.sums
    assert count_sensitivity(part) == pytest.approx(np.sqrt(2))
    assert merge([noisy, noisy, noisy]).noise == pytest.approx(12.0)


def test_the_noise_of_privacy_fits() -> None:
    from common.privacy.noise import ChaChaNoise

    part = Statistics(patients=np.array(40.0), cells={"a": np.zeros((2, 3))}, sums={})
    noisy = with_count_noise(part, 1.0, ChaChaNoise())
    assert isinstance(noisy.cells["a"], np.ndarray)
    assert noisy.cells["a"].shape == (2, 3)
    assert np.abs(noisy.cells["a"]).min() > 0
