"""Privacy plan of a site for a run, made before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from common.platform.errors import PrivacyError

#: Less noise than this underflows to none; its epsilon is infinite all the same.
_LEAST_NOISE = 1e-300


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A sampled Gaussian mechanism over patients: enough to recompute its epsilon for ever."""

    noise_multiplier: float  # sigma: noise standard deviation / clip_norm
    sampling_rate: float  # q: probability that a patient is in a step; 1 takes all
    steps: int  # noised steps
    clip_norm: float  # C: largest L2 norm of one patient's contribution
    divisor: float  # public constant that the noised sum is divided by
    unit: Literal["patient"] = "patient"

    def __post_init__(self) -> None:
        """Refuse figures that no accountant can bound; PrivacyError names the field."""
        # nan compares false with everything, so each is asked what it must be.
        if not 0 <= self.sampling_rate <= 1:
            raise _impossible("sampling_rate", self.sampling_rate, "from 0 to 1")
        if self.steps < 0:
            raise _impossible("steps", self.steps, "at least 0")
        for name in ("noise_multiplier", "clip_norm", "divisor"):
            value = float(getattr(self, name))
            if not 0 < value < math.inf:
                raise _impossible(name, value, "above 0 and finite")


def _impossible(name: str, value: float, expected: str) -> PrivacyError:
    return PrivacyError(f"A mechanism has {name}={value}, expected {expected}.")


def count_mechanism(sensitivity: float, standard_deviation: float) -> Mechanism:
    """Return the mechanism of counts that are told once, each with Gaussian noise.

    `sensitivity` is how far (L2) one patient more or less moves all of them together.
    """
    return Mechanism(
        noise_multiplier=max(standard_deviation / sensitivity, _LEAST_NOISE),
        sampling_rate=1.0,
        steps=1,
        clip_norm=sensitivity,
        divisor=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """The mechanism of a whole run at one site, and what it promises."""

    mechanism: Mechanism  # of all rounds together
    steps_per_round: int
    clipping: Literal["automatic", "flat"]
    epsilon: float  # of the whole run, by the binding accountant
    delta: float
    simulated_noise: bool  # True: noise came from a seed, no privacy claim
    common_epsilon: float | None = None  # of the run at delta 1e-5, to compare it with others


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """Where a site's ledger stands: its number of charges and the hash of the last.

    It tells of charges, never of patients. A ledger only grows, so a head with fewer charges
    than an earlier one, or with another hash at the same number, is that of an old copy.
    """

    charges: int  # of all cohorts and runs of the site
    hash: str  # SHA-256 in hex, over the last charge and the hash before it


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What one round was charged, as the ledger recorded it; travels with the update.

    The epsilons are at three deltas: the run's own, the one at which all runs can be compared,
    and that of the site's limit.
    """

    mechanism: Mechanism  # this round's steps
    run_epsilon: float  # of this run after the round, at run_delta
    run_delta: float  # of the run's configuration
    cohort_epsilon: float  # of all runs on the same patients after the round, at cohort_delta
    cohort_delta: float  # of the site's limit for these patients
    ledger: LedgerHead  # right after this charge
    simulated_noise: bool
    run_common_epsilon: float | None = None  # of this run after the round, at delta 1e-5
