"""Signal against noise of a private run, from public figures.

In each step the sum of clipped gradients is at most (patients) x (clip norm) long, and that only
where all point the same way; the noise of a site has length sigma x clip norm x sqrt(trained
values). Over T steps the one adds up as T, the other as sqrt(T). So this compares the noise of
the run with the most that it could ever learn: above 1 nothing was learnt in any run that we
measured, below 0.2 the shipped runs work (DECISIONS.md).

Public: Prospect, prospect, NOTICEABLE, HOPELESS.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from common.privacy.plan import Mechanism

#: From here on a run lost a good part of what it could learn.
NOTICEABLE = 0.3
#: From here on the noise is longer than anything that could be learnt.
HOPELESS = 1.0


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """Length of a run's noise as part of that of the largest sum it could ever make."""

    noise_to_signal: float
    values: int  # that are trained and noised

    @property
    def words(self) -> str:
        """Say what that means for the model."""
        ratio = f"{self.noise_to_signal:.2g} of the largest signal ({self.values:,} trained values)"
        if self.noise_to_signal >= HOPELESS:
            return (
                f"Noise exceeds signal: {ratio}. The model will most likely be no better than a "
                "constant. Train fewer values (model.network: frozen_features), more patients or "
                "steps, or raise epsilon."
            )
        if self.noise_to_signal >= NOTICEABLE:
            return f"Noise is {ratio}: expect a clearly worse model than without privacy."
        return f"Noise is {ratio}; it is felt from {NOTICEABLE:g} on."


def prospect(mechanisms: Collection[Mechanism], values: int) -> Prospect | None:
    """Return the prospect of sites whose whole run is so charged, None where there is no site."""
    signal = sum(m.divisor * m.steps for m in mechanisms)
    noise = math.sqrt(sum(m.noise_multiplier**2 * m.steps for m in mechanisms) * values)
    return Prospect(noise_to_signal=noise / signal, values=values) if signal > 0 else None
