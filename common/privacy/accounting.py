"""Accounting: from mechanisms to epsilon. The way back is common/privacy/noise_calibration.py.

Where every patient is in every step the composition of Gaussians is a Gaussian and epsilon
is exact (Balle and Wang 2018, theorem 8; mu^2 adds up, Dong et al. 2022, corollary 3.3).
Otherwise the privacy loss distribution of dp-accounting binds, rounded to the pessimistic
side. Unit: one patient, added or removed with all their images.

Public: epsilon_of, rdp_epsilon, gaussian_delta.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from common.privacy.plan import Mechanism

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

#: Width of the buckets of the privacy loss; 1e-3 was within 1e-3 of 1e-5 and 80 times faster.
_PLD_INTERVAL = 1e-3
#: Halvings that bring a closed form to the last bits of a float.
_HALVINGS = 60
#: Beyond it epsilon is above 10^11, and floats run out not far from there.
_LARGEST_MU = 1e6
_LARGEST_MIXED_MU = 50.0
_TINY = 1e-300


def epsilon_of(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Return the epsilon at delta of all mechanisms together on the same patients."""
    history = tuple(m for m in mechanisms if m.steps > 0)
    if any(m.noise_multiplier <= 0 for m in history):
        return math.inf
    full = [m for m in history if m.sampling_rate >= 1]
    if len(full) == len(history):
        return _gaussian_epsilon(_mu(full), delta)
    if _mu(full) > _LARGEST_MIXED_MU:
        return math.inf  # an epsilon of thousands, whose distribution fills the memory
    return _pld_epsilon(_merged(history), delta)


def rdp_epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Return the epsilon by Renyi divergence: an upper bound that checks the binding one."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    for m in mechanisms:
        gaussian = GaussianDpEvent(m.noise_multiplier)
        sampled = PoissonSampledDpEvent(m.sampling_rate, gaussian)
        accountant.compose(gaussian if m.sampling_rate >= 1 else sampled, m.steps)
    return float(accountant.get_epsilon(delta))


def _mu(history: Sequence[Mechanism]) -> float:
    return math.sqrt(sum(m.steps / _square(m.noise_multiplier) for m in history))


def _square(noise: float) -> float:
    """Return the square, above 0 where it underflows and infinite where it overflows."""
    return max(noise * noise, _TINY)


def _merged(history: Sequence[Mechanism]) -> tuple[tuple[float, float, int], ...]:
    """Return (sigma, q, steps), oldest first, with equal ones joined: rounds of a run are alike."""
    steps: dict[tuple[float, float], int] = {}
    for m in history:
        key = (m.noise_multiplier, m.sampling_rate)
        steps[key] = steps.get(key, 0) + m.steps
    full = sum(n / _square(sigma) for (sigma, q), n in steps.items() if q >= 1)
    parts = ((sigma, q, n) for (sigma, q), n in steps.items() if q < 1)
    # All full-batch steps together are one Gaussian, exactly.
    return (*([(1 / math.sqrt(full), 1.0, 1)] if full else []), *parts)


@lru_cache(maxsize=1024)
def _pld_epsilon(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    *past, last = history
    together = _pld(*last)
    if past:
        together = _composed(tuple(past)).compose(together)
    return float(together.get_epsilon_for_delta(delta))


@lru_cache(maxsize=16)
def _composed(history: tuple[tuple[float, float, int], ...]) -> PrivacyLossDistribution:
    """Return the composition of what came before; the same for every round of a run."""
    total = _pld(*history[0])
    for entry in history[1:]:
        total = total.compose(_pld(*entry))
    return total


@lru_cache(maxsize=128)
def _pld(sigma: float, sampling_rate: float, steps: int) -> PrivacyLossDistribution:
    # Imported here: full-batch runs do without it.
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=sigma,
        value_discretization_interval=_PLD_INTERVAL,
        sampling_prob=sampling_rate,
    ).self_compose(steps)


def _log_tail(x: float) -> float:
    """Return log P(Z > x) of a standard normal, also where the probability underflows."""
    if x < 30:
        return math.log(0.5 * math.erfc(x / math.sqrt(2)))
    return -0.5 * x * x - math.log(x) - 0.5 * math.log(2 * math.pi) - 1 / (x * x)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return delta of a Gaussian with mu = sensitivity / sigma (Balle and Wang 2018, eq. 6)."""
    first = 0.5 * math.erfc((epsilon / mu - mu / 2) / math.sqrt(2))
    second = math.exp(min(epsilon + _log_tail(epsilon / mu + mu / 2), 0.0))
    return max(first - second, 0.0)


def _gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon, rounded up by the last bits of a float."""
    if mu > _LARGEST_MU:
        return math.inf
    if mu == 0 or gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return high
