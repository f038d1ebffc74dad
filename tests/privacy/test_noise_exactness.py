"""Draws are the roundings of true normal variables, in the tails and in the middle."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy import stats
from torch import Tensor

from common.platform.errors import PrivacyError
from common.privacy import noise
from common.privacy.noise import ChaChaNoise, SimulatedNoise, grid_of

#: Of the optimiser's noise in grid units at the largest sigma that shipped runs reach.
SPREAD = 2.0**25
WORDS = 2**16


def with_words(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor, Tensor], None], count: int = WORDS
) -> tuple[Tensor, Tensor, Tensor]:
    """Return draws of one chunk whose words were changed first, and those words."""
    stream = noise._Stream(bytes(range(32)))
    real, half, kept = stream._next, count // 2, []

    def chosen(words: int) -> int:
        real(words)
        change(stream._words[:half], stream._words[half : 2 * half])
        kept.append(stream._words[:words].clone())
        return words

    monkeypatch.setattr(stream, "_next", chosen)
    draws = stream.gaussian((count,), SPREAD)
    return draws, kept[0][:half] & (2**63 - 1), kept[0][half:]


def hard_ends(first: Tensor, second: Tensor) -> None:
    """Put the ends where floats err most: small and large words, angles near the axes."""
    draw = np.random.default_rng(5)
    quarter = len(first) // 4
    first[:quarter] = torch.from_numpy(np.exp2(draw.uniform(43, 63, quarter)).astype(np.int64))
    large = 2**63 - 1 - np.exp2(draw.uniform(42, 60, quarter)).astype(np.int64)
    first[quarter : 2 * quarter] = torch.from_numpy(large)
    near = np.exp2(draw.uniform(0, 60, quarter)).astype(np.int64)
    second[::4] = torch.from_numpy(near + draw.integers(-2, 2, quarter) * 2**62)


def test_floats_err_by_less_than_what_makes_a_draw_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []
    real = torch.round

    def keep(value: Tensor, *, out: Tensor) -> Tensor:
        seen.append(value.clone())
        return real(value, out=out)

    monkeypatch.setattr(noise.torch, "round", keep)
    _, first, second = with_words(monkeypatch, hard_ends)
    sure = (first >= noise._TOO_SMALL) & (first <= noise._TOO_LARGE)
    half, worst = len(first), 0.0
    mp.prec = 256
    for place in sure.nonzero().flatten().tolist()[::4]:
        for more in (0, 1):  # both ends of what further bits can say
            uniform = (mp.mpf(int(first[place])) + more) / 2**63
            if not 0 < uniform < 1:
                continue
            radius = mp.sqrt(-2 * mp.log(uniform)) * SPREAD
            turn = 2 * mp.pi * (mp.mpf(int(second[place])) + more) / 2**64
            for found, wave in ((seen[0][place], mp.cos), (seen[0][half + place], mp.sin)):
                worst = max(worst, abs(float(radius * wave(turn) - mp.mpf(float(found)))))
    assert 0 < worst < noise._FLOAT_ERROR * SPREAD / 4  # a factor to spare


def test_draws_decided_by_floats_are_those_decided_with_more_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = SimulatedNoise("one").gaussian((3000,), SPREAD)
    monkeypatch.setattr(noise, "_FLOAT_ERROR", 0.5)  # all are doubtful
    assert torch.equal(SimulatedNoise("one").gaussian((3000,), SPREAD), quick)


def test_few_draws_are_doubtful_and_they_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = []
    real = noise._exactly
    monkeypatch.setattr(
        noise,
        "_exactly",
        lambda *a, **k: decided.append(1) or real(*a, **k),  # type: ignore[func-returns-value]
    )
    SimulatedNoise("many").gaussian((2**21,), SPREAD)
    # 2 x 2^-16 of a unit and two in a million pairs: 64 + 6 of two million.
    assert 20 < len(decided) < 200


def test_tails_beyond_seven_sigma_are_those_of_a_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 2^-36 the squared radius less its least is twice an exponential variable."""
    small = torch.from_numpy(np.random.default_rng(3).integers(0, 2**27, 10_000))

    def tail(first: Tensor, _: Tensor) -> None:
        first.copy_(small)

    draws, first, _ = with_words(monkeypatch, tail, 20_000)
    radius = torch.hypot(draws[: len(first)], draws[len(first) :]) / SPREAD
    beyond = radius.square() / 2 - 36 * math.log(2)
    assert float(radius.min()) > 7.0
    assert stats.kstest(beyond.numpy(), "expon").pvalue > 1e-7
    angle = torch.atan2(draws[len(first) :], draws[: len(first)]) / (2 * math.pi) + 0.5
    assert stats.kstest(angle.numpy(), "uniform").pvalue > 1e-7


def test_the_smallest_words_leave_no_gap_between_the_values_that_can_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With steps of 2^-54 the radius took 34 values beyond 8 sigma, and none beyond 8.6."""

    def smallest(first: Tensor, second: Tensor) -> None:
        first.copy_(torch.arange(len(first)) % 4)
        second.zero_()

    draws, first, _ = with_words(monkeypatch, smallest, 4000)
    along = draws[: len(first)]  # cos is 1 but for the further bits
    assert len(along.unique()) > 0.99 * len(along)
    assert float(along.max()) > 9.2 * SPREAD
    beyond = (along[first == 0] / SPREAD).square() / 2 - 63 * math.log(2)
    assert stats.kstest(beyond.numpy(), "expon").pvalue > 1e-7


@pytest.mark.parametrize("source", [ChaChaNoise, lambda: SimulatedNoise("squares")])
@pytest.mark.parametrize("spread", [0.37, 1.0, 1.5e5, 3.5 * 2**20])
def test_moments_and_counts_by_quantile_are_those_of_a_normal(
    source: Callable[[], noise.NoiseSource], spread: float
) -> None:
    count, cells = 400_000, 200
    draws = source().gaussian((count,), spread).numpy() / spread
    assert abs(draws.mean()) < 6 / math.sqrt(count)
    assert abs(draws.var() - 1) < 6 * math.sqrt(2 / count)
    assert abs((draws**3).mean()) < 6 * math.sqrt(15 / count)
    assert abs((draws**4).mean() - 3) < 6 * math.sqrt(96 / count)
    found = np.bincount((stats.norm.cdf(draws) * cells).astype(int), minlength=cells)
    assert stats.chisquare(found).pvalue > 1e-7


@pytest.mark.parametrize("spread", [1e-3, 0.37, 1.0, 3.0, 1023.9, 1024.0, 3.5 * 2**20])
def test_draws_are_multiples_of_a_grid_that_whole_numbers_are_multiples_of(spread: float) -> None:
    grid = grid_of(spread)
    steps = SimulatedNoise("grid").gaussian((5000,), spread) / grid
    assert torch.equal(steps, steps.round())
    assert 1.0 >= grid == 2.0 ** round(math.log2(grid))
    assert spread / grid >= 2**10


@pytest.mark.parametrize("spread", [0.0, -1.0, math.nan, math.inf, 2.0**37])
def test_a_spread_that_cannot_be_drawn_exactly_is_refused(spread: float) -> None:
    with pytest.raises(PrivacyError, match="standard deviation"):
        ChaChaNoise().gaussian((3,), spread)


def test_a_machine_restored_from_an_image_draws_other_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process comes back as it was, to the bit; the system's generator goes on."""
    source = ChaChaNoise()
    source.uniform(10)
    image = source._key
    after = [source.of_round("run", 2).gaussian((9,), 1.0), source.uniform(9)]
    source._key = image
    source._stream.begin(image)
    again = [source.of_round("run", 2).gaussian((9,), 1.0), source.uniform(9)]
    assert not any(torch.equal(a, b) for a, b in zip(after, again, strict=True))
    # Put the fault in: without fresh randomness the same noise comes twice.
    monkeypatch.setattr("common.privacy.noise.os.urandom", bytes)
    found = []
    for _ in range(2):
        source._key = image
        found.append(source.of_round("run", 2).gaussian((9,), 1.0))
    assert torch.equal(found[0], found[1])


def test_no_key_is_used_for_two_calls() -> None:
    source, keys = ChaChaNoise(), set()
    for _ in range(50):
        source.uniform(1)
        keys.add(source._key)
    assert len(keys) == 50
