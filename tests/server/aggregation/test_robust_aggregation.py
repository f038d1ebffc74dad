from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config.run_config import Aggregation
from common.platform.errors import RunFailed
from server.aggregation.robust import combine_robustly, krum_order

Deltas = list[dict[str, torch.Tensor]]


def around(center: float, sites: int, seed: int) -> Deltas:
    draw = torch.Generator().manual_seed(seed)
    return [
        {
            "a": center + 0.1 * torch.randn(2, 2, generator=draw),
            "b": center + 0.1 * torch.randn(3, generator=draw),
        }
        for _ in range(sites)
    ]


def rule_of(rule: str, **settings: float) -> Aggregation:
    return Aggregation.model_validate({"rule": rule, **settings})


def flat(delta: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([delta[n].numpy().ravel() for n in sorted(delta)])


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_the_median_is_numpys(seed: int, sites: int) -> None:
    deltas = around(0.0, sites, seed)
    found = combine_robustly(rule_of("median"), deltas)
    expected = np.median(np.stack([flat(d) for d in deltas]), axis=0)
    np.testing.assert_allclose(flat(found), expected, rtol=1e-6, atol=1e-7)


@given(st.integers(0, 2**31), st.integers(1, 9), st.floats(0, 0.49))
def test_the_trimmed_mean_drops_the_ends_of_each_coordinate(
    seed: int, sites: int, fraction: float
) -> None:
    deltas = around(0.0, sites, seed)
    found = flat(combine_robustly(rule_of("trimmed_mean", trim_fraction=fraction), deltas))
    columns = np.stack([flat(d) for d in deltas]).T
    cut = int(fraction * sites)
    expected = [np.mean(sorted(column)[cut : sites - cut]) for column in columns]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def krum_slowly(deltas: Deltas, faulty: int) -> int:
    """Blanchard et al. 2017, section 4, by the letter."""
    vectors = [flat(d).astype(np.float64) for d in deltas]
    scores = []
    for i, own in enumerate(vectors):
        away = sorted(float(((own - x) ** 2).sum()) for j, x in enumerate(vectors) if j != i)
        scores.append(sum(away[: len(vectors) - faulty - 2]))
    return int(np.argmin(scores))


@given(st.integers(0, 2**31), st.integers(5, 9), st.integers(0, 2))
def test_krum_is_the_papers(seed: int, sites: int, faulty: int) -> None:
    deltas = around(0.0, sites, seed)
    assert krum_order(deltas, faulty)[0] == krum_slowly(deltas, faulty)


def test_krum_tells_close_sites_apart_far_from_the_origin() -> None:
    # |x|^2 + |y|^2 - 2xy in float32 would see no distance here at all.
    deltas = [{"a": torch.tensor([1000.0 + d])} for d in (0.0, 0.01, 0.02, 0.5, 0.9)]
    assert krum_order(deltas, 1)[0] == 1


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "multi_krum"])
@given(
    seed=st.integers(0, 2**31),
    lie=st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 10),
    liars=st.sets(st.integers(0, 6), min_size=1, max_size=2),
)
def test_up_to_f_wrong_sites_of_2f_plus_3_cannot_move_the_result(
    rule: str, seed: int, lie: float, liars: set[int]
) -> None:
    deltas = around(1.0, 7, seed)
    for liar in liars:
        deltas[liar] = {n: torch.full_like(v, lie) for n, v in deltas[liar].items()}
    config = rule_of(rule, faulty_sites=2, trim_fraction=0.3)
    found = flat(combine_robustly(config, deltas))
    honest = np.stack([flat(d) for i, d in enumerate(deltas) if i not in liars])
    assert (found >= honest.min(0) - 1e-4).all()
    assert (found <= honest.max(0) + 1e-4).all()


def test_multi_krum_is_the_mean_of_the_n_minus_f_best() -> None:
    deltas = around(0.0, 6, 1)
    best = krum_order(deltas, 2)[:4]
    found = flat(combine_robustly(rule_of("multi_krum", faulty_sites=2), deltas))
    np.testing.assert_allclose(found, np.mean([flat(deltas[i]) for i in best], axis=0), rtol=1e-5)


def test_krum_with_too_few_sites_says_how_many_it_needs() -> None:
    for sites, faulty in itertools.product((1, 2, 3), (1, 2)):
        with pytest.raises(RunFailed, match=rf"at least {faulty + 3} updates, got {sites}"):
            krum_order(around(0.0, sites, 0), faulty)
