"""Privacy statement of a run: what it promises its patients and what not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from common.config.privacy import COMMON_DELTA
from common.config.run_config import Extension, PatientPrivacy

SIMULATED = "Simulated noise: no privacy claim."

_NOT_COVERED = (
    "Not covered: a patient who is in the data of several hospitals (their epsilons add up), "
    "or whom a hospital serves from two installations, each with a ledger of its own; "
    "hyper-parameters that were chosen by looking at these patients; stopping early or choosing a "
    "round by validation patients; when an answer comes, and whether a hospital's folder and "
    "table can be read at all. Counts that measured the model or described the cohort left with "
    "noise that was charged to the same ledger."
)


def statement(
    privacy: PatientPrivacy | Literal["none"],
    epsilon: Mapping[str, float],
    delta: Mapping[str, float],
    common_epsilon: Mapping[str, float],
    *,
    simulated: bool,
    extensions: Sequence[Extension] = (),
) -> str:
    """Return the whole statement for a model; figures are by site, as charged.

    `common_epsilon` is at delta 1e-5; what an older release charged may lack it.
    """
    if privacy == "none" or not epsilon:
        return (
            "No privacy claim: the model was trained without differential privacy. Updates stay "
            "between hospitals and coordinator, but weights can tell of single patients."
        )
    spent = "; ".join(_spent(site, epsilon, delta, common_epsilon) for site in sorted(epsilon))
    promise = (
        f"Differential privacy by {privacy.unit}, at each hospital for itself: {spent}. Adding or "
        "removing one patient, which is all files and all rows of the table under one PatientID, "
        "changes the probability of any outcome of training by at most a factor of e^epsilon, but "
        "for a probability of delta."
    )
    stamp = (
        f"{SIMULATED} The noise came from a seed so that the run can be repeated; the figures say "
        "what a run with secret noise would have been charged. "
    )
    told = f"{stamp if simulated else ''}{promise} {_NOT_COVERED}"
    return f"{told}{_declared(privacy, sorted(epsilon))}{_foreign(extensions)}"


def _spent(
    site: str,
    epsilon: Mapping[str, float],
    delta: Mapping[str, float],
    common_epsilon: Mapping[str, float],
) -> str:
    text = f"{site} epsilon {epsilon[site]:.3g} at delta {delta[site]:.2g}"
    if delta[site] == COMMON_DELTA or site not in common_epsilon:
        return text
    return f"{text}, which is {common_epsilon[site]:.3g} at delta {COMMON_DELTA:.0e}"


def _foreign(extensions: Sequence[Extension]) -> str:
    """Return what code of others changes of the claim."""
    if not extensions:
        return ""
    named = ", ".join(f"{e.distribution} {e.version} ({e.content})" for e in extensions)
    return (
        f" The run took part of its work from code that is not Wardround's: {named}. Each "
        "patient's part was clipped as ever, and a network among it was tried on made-up patients; "
        "that such code does nothing else with what it sees, such as keep it, write it down or "
        "send it, is not covered."
    )


def _declared(privacy: PatientPrivacy, sites: Iterable[str]) -> str:
    declared = [site for site in sites if privacy.declares(site)]
    if not declared:
        return ""
    return (
        f" Nor is the exact number of training patients of {', '.join(declared)}, which each "
        "update told (default_patients: declared)."
    )
