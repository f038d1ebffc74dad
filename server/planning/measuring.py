"""Measurement of a finished run on the sites' test patients, and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.config.privacy import COMMON_DELTA
from common.config.run_config import RunConfig
from common.messages.wire import SiteReport
from common.metrics.intervals import Estimate
from common.metrics.statistics import Statistics, merge
from common.privacy.measuring import is_told, largest_delta, measuring_epsilon
from common.tasks.summary import summarised
from server.rounds.run_rounds import Sites, ask_reports
from server.rounds.run_state import RunState
from server.rounds.update_admission import NotAdmitted


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the sites told of a run's weights."""

    reports: Sequence[SiteReport]
    left_out: Sequence[NotAdmitted]
    merged: Statistics | None  # None: no site told anything
    metrics: dict[str, Estimate]
    by_site: dict[str, dict[str, Estimate]]


def measure_tests(config: RunConfig, sites: Sites, state: RunState) -> Measured:
    """Ask the sites to measure the chosen weights on their test patients, and merge what they tell.

    Between hospitals and in a simulation it is this one function. Nobody is asked where every site
    would have to refuse.
    """
    reports: list[SiteReport] = []
    left_out: list[NotAdmitted] = []
    if is_told(config):
        reports, left_out = ask_reports(config, sites, state, sites.available(), "test")
    merged = merge(report.statistics for report in reports) if reports else None
    return Measured(
        reports=reports,
        left_out=left_out,
        merged=merged,
        metrics={} if merged is None else summarised(config, merged),
        by_site={r.site: summarised(config, r.statistics) for r in reports},
    )


def measured(config: RunConfig) -> str:
    """Return in a sentence how a run in force is measured, and what that costs its patients."""
    noise, privacy = config.evaluation.count_noise, config.privacy
    if privacy == "none":
        return (
            "Measured by counts, by those sites whose policy lets them leave."
            if noise > 0
            else "Measured by exact counts, by those sites whose policy.metrics is any."
        )
    if not noise > 0:
        return "Not measured between hospitals: evaluation.count_noise is 0."
    if not is_told(config):
        delta = largest_delta(config)
        epsilon = measuring_epsilon(config, delta)
        return (
            f"Not measured between hospitals: noise of {noise:g} patients would cost each test "
            f"patient epsilon {epsilon:.3g} at delta {delta:.2g}, more than the run's "
            f"{privacy.epsilon:g}. Raise evaluation.count_noise."
        )
    return (
        f"Measured once, at its end, with noise of {noise:g} patients on each count: epsilon "
        f"{measuring_epsilon(config):.3g} at delta {COMMON_DELTA:.0e} for each test patient, who "
        "trains nothing."
    )


def told_epsilon(config: RunConfig) -> float | None:
    """Return the epsilon at delta 1e-5 of measuring a private run; None where that tells none."""
    return None if config.privacy == "none" or not is_told(config) else measuring_epsilon(config)
