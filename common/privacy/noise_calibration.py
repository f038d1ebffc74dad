"""Calibration of the noise: from epsilon, delta and the steps of a run to its noise multiplier.

The smallest noise with which everything that the same patients were ever in stays within epsilon,
by the accounting of common/privacy/accounting.py.

Public: calibrate, delta_of, make_plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from common.config.privacy import COMMON_DELTA
from common.config.run_config import PatientPrivacy, Training
from common.platform.errors import BudgetExceeded, PrivacyError
from common.privacy.accounting import epsilon_of, gaussian_delta
from common.privacy.plan import Mechanism, PrivacyPlan

#: Halvings that bring a closed form to the last bits of a float.
_HALVINGS = 60
#: Calibration ends when the noise is within this part of the smallest that fits.
_NOISE_TOLERANCE = 1e-3
_LARGEST_NOISE = 2.0**40


def calibrate(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    history: Sequence[Mechanism] = (),
) -> float:
    """Return the smallest noise multiplier with which `steps` more stay within epsilon.

    What `history` has spent on the same patients counts. BudgetExceeded when it alone is at
    or over epsilon.
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
            noise_multiplier=sigma,
            sampling_rate=sampling_rate,
            steps=steps,
            clip_norm=1.0,
            divisor=1.0,
        )
        return epsilon_of((*history, more), delta) <= epsilon

    closed = sampling_rate >= 1 and all(m.sampling_rate >= 1 for m in history)
    first = _first_guess(epsilon, delta, sampling_rate, steps)
    return _smallest(fits, first, 0.0 if closed else _NOISE_TOLERANCE)


def _first_guess(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return nearly the noise for the run alone: a Gaussian in the limit of many steps.

    Bu et al. 2020, theorem 5: mu = q sqrt(steps (e^(1/sigma^2) - 1)). It may be too small, so
    it only says where the search begins.
    """
    low, high = 0.0, 100.0
    for _ in range(_HALVINGS):
        mu = (low + high) / 2
        low, high = (mu, high) if gaussian_delta(mu, epsilon) <= delta else (low, mu)
    if low <= 0:
        return _LARGEST_NOISE
    if sampling_rate >= 1:
        return math.sqrt(steps) / low
    return 1 / math.sqrt(math.log1p((low / sampling_rate) ** 2 / steps))


def _smallest(fits: Callable[[float], bool], first: float, tolerance: float) -> float:
    """Return the smallest value that fits, from above; `fits` turns true once as values rise."""
    high, step = first, 1.02
    while not fits(high):
        high, step = high * step, step**2
        if high > _LARGEST_NOISE:
            message = "No noise is large enough for this epsilon and delta; raise one of them."
            raise PrivacyError(message)
    low, step = high / 1.02, 1.02
    while fits(low):
        high, low, step = low, low / step, step**2
    for _ in range(_HALVINGS):
        if high - low <= tolerance * high:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def delta_of(privacy: PatientPrivacy, patients: int) -> float:
    """Return the run's delta at a site: as given, or 1 / (10 x the patients it counts on)."""
    return 1.0 / (10 * patients) if privacy.delta == "per_site" else privacy.delta


@lru_cache(maxsize=256)
def _calibrated(
    epsilon: float, delta: float, rate: float, steps: int, history: tuple[Mechanism, ...]
) -> float:
    return calibrate(epsilon, delta, rate, steps, history)


def make_plan(
    privacy: PatientPrivacy,
    training: Training,
    patients: int,
    divisor: float,
    *,
    simulated: bool,
    history: Sequence[Mechanism] = (),
) -> PrivacyPlan:
    """Return one site's plan: noise calibrated to the run's epsilon over all its rounds.

    With a history of the same patients, epsilon is that of the history and the run together.
    """
    steps = training.rounds * training.local_steps
    delta = delta_of(privacy, patients)
    rate = privacy.sampling_rate
    mechanism = Mechanism(
        noise_multiplier=_calibrated(privacy.epsilon, delta, rate, steps, tuple(history)),
        sampling_rate=rate,
        steps=steps,
        clip_norm=privacy.clip_norm,
        divisor=divisor,
    )
    return PrivacyPlan(
        mechanism=mechanism,
        steps_per_round=training.local_steps,
        clipping=privacy.clipping,
        epsilon=epsilon_of([*history, mechanism], delta),
        delta=delta,
        common_epsilon=epsilon_of([*history, mechanism], COMMON_DELTA),
        simulated_noise=simulated,
    )
