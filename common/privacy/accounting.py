"""From mechanisms to epsilon and back.

Where every patient is in every step the composition of Gaussians is a Gaussian and epsilon
is exact (Balle and Wang 2018, theorem 8; mu^2 adds up, Dong et al. 2022, corollary 3.3).
Otherwise the privacy loss distribution of dp-accounting binds, rounded to the pessimistic
side. Unit: one patient, added or removed with all their images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from common.config import PatientPrivacy, Training
from common.errors import BudgetExceeded, PrivacyError
from common.privacy.plan import Mechanism, PrivacyPlan

#: Width of the buckets of the privacy loss; 1e-3 was within 1e-3 of 1e-5 and 80 times faster.
_PLD_INTERVAL = 1e-3
#: Steps that calibration halves the noise in: 2^-40 of the range.
_HALVINGS = 60


def epsilon_of(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Return the epsilon at delta of all mechanisms together on the same patients."""
    history = tuple(m for m in mechanisms if m.steps > 0)
    if any(m.noise_multiplier <= 0 for m in history):
        return math.inf
    if all(m.sampling_rate >= 1 for m in history):
        return _gaussian_epsilon(_mu(history), delta)
    return _pld_epsilon(_merged(history), delta)


def rdp_epsilon(mechanisms: Iterable[Mechanism], delta: float) -> float:
    """Return the epsilon by Renyi divergence: an upper bound that checks the binding one."""
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    for mechanism in mechanisms:
        accountant.compose(_event(mechanism), mechanism.steps)
    return float(accountant.get_epsilon(delta))


def _mu(history: Sequence[Mechanism]) -> float:
    return math.sqrt(sum(m.steps / m.noise_multiplier**2 for m in history))


def _merged(history: Sequence[Mechanism]) -> tuple[tuple[float, float, int], ...]:
    """Return (sigma, q, steps) with equal mechanisms joined: rounds of one run are alike."""
    steps: dict[tuple[float, float], int] = {}
    for m in history:
        key = (m.noise_multiplier, m.sampling_rate)
        steps[key] = steps.get(key, 0) + m.steps
    return tuple((sigma, q, count) for (sigma, q), count in sorted(steps.items()))


@lru_cache(maxsize=1024)
def _pld_epsilon(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    # Imported here: it takes longer to load than a small run.
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=_PLD_INTERVAL)
    for sigma, rate, steps in history:
        mechanism = Mechanism(
            noise_multiplier=sigma, sampling_rate=rate, steps=steps, clip_norm=1.0, divisor=1.0
        )
        accountant.compose(_event(mechanism), steps)
    return float(accountant.get_epsilon(delta))


def _event(mechanism: Mechanism):  # type: ignore[no-untyped-def]  # noqa: ANN202 - dp_accounting ships no types
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent

    gaussian = GaussianDpEvent(mechanism.noise_multiplier)
    if mechanism.sampling_rate >= 1:
        return gaussian
    return PoissonSampledDpEvent(mechanism.sampling_rate, gaussian)


def _log_tail(x: float) -> float:
    """Return log P(Z > x) of a standard normal, also where the probability underflows."""
    if x < 30:
        return math.log(0.5 * math.erfc(x / math.sqrt(2)))
    return -0.5 * x * x - math.log(x) - 0.5 * math.log(2 * math.pi) - 1 / (x * x)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return delta of a Gaussian mechanism with mu = sensitivity / sigma (Balle and Wang, eq. 6)."""
    first = 0.5 * math.erfc((epsilon / mu - mu / 2) / math.sqrt(2))
    second = math.exp(min(epsilon + _log_tail(epsilon / mu + mu / 2), 0.0))
    return max(first - second, 0.0)


def _gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon, rounded up by less than 1e-9."""
    if mu == 0:
        return 0.0
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return high


def calibrate(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    history: Sequence[Mechanism] = (),
) -> float:
    """Return the smallest noise multiplier with which `steps` more stay within epsilon.

    BudgetExceeded when the history alone is at or over epsilon.
    """
    spent = epsilon_of(history, delta)
    if spent >= epsilon:
        message = (
            f"These patients have spent epsilon {spent:.3g} of {epsilon:.3g} (delta {delta:.2g}): "
            "nothing is left for another run."
        )
        raise BudgetExceeded(message)

    def fits(sigma: float) -> bool:
        more = Mechanism(
            noise_multiplier=sigma, sampling_rate=sampling_rate, steps=steps, clip_norm=1.0,
            divisor=1.0,
        )  # fmt: skip
        return epsilon_of((*history, more), delta) <= epsilon

    high = 1.0
    while not fits(high):
        high *= 2
        if high > 2**40:
            message = f"No noise gives epsilon {epsilon} at delta {delta}; raise epsilon."
            raise PrivacyError(message)
    low = 0.0
    closed = sampling_rate >= 1 and all(m.sampling_rate >= 1 for m in history)
    for _ in range(_HALVINGS if closed else 14):
        middle = (low + high) / 2
        low, high = (low, middle) if middle > 0 and fits(middle) else (middle, high)
    return high


def delta_of(privacy: PatientPrivacy, patients: int) -> float:
    """Return the run's delta at a site: as given, or 1 / (10 x its training patients)."""
    return 1.0 / (10 * patients) if privacy.delta == "per_site" else privacy.delta


@lru_cache(maxsize=256)
def _calibrated(epsilon: float, delta: float, rate: float, steps: int) -> float:
    return calibrate(epsilon, delta, rate, steps)


def make_plan(
    privacy: PatientPrivacy,
    training: Training,
    patients: int,
    divisor: float,
    *,
    simulated: bool,
) -> PrivacyPlan:
    """Return one site's plan: noise calibrated to the run's epsilon over all its rounds."""
    steps = training.rounds * training.local_steps
    delta = delta_of(privacy, patients)
    sigma = _calibrated(privacy.epsilon, delta, privacy.sampling_rate, steps)
    mechanism = Mechanism(
        noise_multiplier=sigma, sampling_rate=privacy.sampling_rate, steps=steps,
        clip_norm=privacy.clip_norm, divisor=divisor,
    )  # fmt: skip
    return PrivacyPlan(
        mechanism=mechanism, steps_per_round=training.local_steps, clipping=privacy.clipping,
        epsilon=epsilon_of([mechanism], delta), delta=delta, simulated_noise=simulated,
    )  # fmt: skip
