"""What a run promises its patients, in words, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from common.config import PatientPrivacy

SIMULATED = "Simulated noise: no privacy claim."

_NOT_COVERED = (
    "Not covered: a patient who is in the data of several hospitals (their epsilons add up); "
    "evaluation counts, unless they were noised and charged; hyper-parameters that were chosen by "
    "looking at these patients; stopping early or choosing a round by validation patients."
)


def statement(
    privacy: PatientPrivacy | Literal["none"],
    epsilon: Mapping[str, float],
    delta: Mapping[str, float],
    *,
    simulated: bool,
) -> str:
    """Return the whole statement for a model; epsilon and delta are by site, as charged."""
    if privacy == "none" or not epsilon:
        return (
            "No privacy claim: the model was trained without differential privacy. Updates stay "
            "between hospitals and coordinator, but weights can tell of single patients."
        )
    spent = "; ".join(
        f"{site} epsilon {epsilon[site]:.3g} at delta {delta[site]:.2g}" for site in sorted(epsilon)
    )
    promise = (
        f"Differential privacy by {privacy.unit}, at each hospital for itself: {spent}. Adding or "
        "removing one patient with all their images changes the probability of any outcome of "
        "training by at most a factor of e^epsilon, but for a probability of delta."
    )
    stamp = (
        f"{SIMULATED} The noise came from a seed so that the run can be repeated; the figures say "
        "what a run with secret noise would have been charged. "
    )
    return f"{stamp if simulated else ''}{promise} {_NOT_COVERED}"
