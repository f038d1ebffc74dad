"""Tables and words of the report."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from common.config.privacy import COMMON_DELTA
from common.metrics.intervals import Estimate
from common.metrics.names import metric_words
from server.planning.measuring import measured, told_epsilon
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.comparison.verdicts import NAMES, Compared, Verdict, said_of
from simulations.report.constant import constant_lines, constant_metrics, constant_of_arm
from simulations.report.pictures import metric_name, shown
from simulations.report.seed_intervals import Intervals


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One line of the table of arms."""

    name: str
    whole: str  # mean and spread over seeds, all hospitals
    interval: str  # 95 %, of the mean over seeds
    sites: tuple[str, ...]  # mean and spread by hospital
    privacy: str  # epsilon and delta; empty without privacy


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """One model at one hospital, held against the hospital's own."""

    site: str
    patients: int
    model: str
    difference: str
    interval: str
    summary: str
    kind: str  # helped, same, harmed or unknown: its colour


@dataclass(frozen=True, kw_only=True)
class LeftOutReason:
    """One reason at one hospital."""

    site: str
    reason: str
    count: int
    remedy: str


# --- in one sentence ---------------------------------------------------------------------

_WORDS: dict[Arm, str] = {
    "federated": "the shared model {value}",
    "local": "each hospital alone {value}",
    "pooled": "all patients pooled in one place {value}",
    "personalised": "the shared model personalised at each hospital {value}",
    "federated_dp": "the shared model with patient-level differential privacy ({price}) {value}",
    "leave_one_out": "each hospital by a shared model of the others {value}",
}
_ORDER: tuple[Arm, ...] = (
    "local",
    "federated",
    "personalised",
    "pooled",
    "federated_dp",
    "leave_one_out",
)


_EXACT = "The figures above are exact, as whoever made this page has all patients."


def summary(found: Comparison) -> str:
    """Return what federation bought, in one sentence with figures."""
    parts = [
        _WORDS[arm].format(value=spread_text(values_of(found, arm)), price=epsilon_text(found))
        for arm in _ORDER
        if arm in found.arms
    ]
    several = len(found.seeds)
    over = f"mean ± spread over {several} seeds" if several > 1 else "one seed"
    average = (
        "mean of the hospitals"
        if found.config.evaluation.average == "sites"
        else (
            f"test patients of {len(found.cohorts)} hospitals together; mean of the hospitals "
            "where each has its own model"
        )
    )
    return f"{metric_name(found)} ({average}, {over}): {'; '.join(parts)}."


def told_of(found: Comparison) -> str:
    """Return what a coordinator between hospitals would be told of the private model."""
    outcomes = found.outcomes.get(("federated_dp", found.seeds[0]))
    if outcomes is None:
        return ""
    told, rules = outcomes[0].told, found.config.evaluation
    if not told:
        return f"The private model: {measured(found.config.in_force())} {_EXACT}"
    parts = [
        f"{metric_words(name)} {e.value:.3f} ({e.low:.3f} to {e.high:.3f})"
        for name, e in told.items()
        if name != "loss" and not math.isnan(e.value)
    ]
    hidden = [metric_words(n) for n, e in told.items() if n != "loss" and math.isnan(e.value)]
    also = f" Not told, as the noise hides it: {', '.join(hidden)}." if hidden else ""
    claim = told_epsilon(found.config.in_force())
    cost = (
        ""
        if claim is None
        else (
            f" (epsilon {claim:.3g} at delta {COMMON_DELTA:.0e} for each test patient, who trains "
            "nothing)"
        )
    )
    return (
        "Between hospitals the coordinator would be told of the private model (first seed), once "
        f"and with noise of {rules.count_noise:g} patients on each count, charged to each "
        f"hospital's ledger{cost}: {'; '.join(parts) or 'nothing'}.{also} {_EXACT}"
    )


def values_of(found: Comparison, arm: Arm) -> list[float]:
    """Return the headline of each seed."""
    return [found.value(arm, seed) for seed in found.seeds]


def spread_text(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds."""
    held = [v for v in values if not math.isnan(v)]
    if not held:
        return "not known"
    spread = f" ± {statistics.stdev(held):.3f}" if len(held) > 1 else ""
    return f"{statistics.fmean(held):.3f}{spread}"


def epsilon_text(found: Comparison) -> str:
    """Return the largest epsilon that any hospital was charged."""
    spent = [
        e
        for seed in found.seeds
        for outcome in found.outcomes.get(("federated_dp", seed), ())
        for e in outcome.epsilon.values()
    ]
    return f"epsilon {max(spent):.3g}" if spent else "unknown epsilon"


# --- arms --------------------------------------------------------------------------------


def arm_rows(found: Comparison, ends: Intervals) -> tuple[ArmRow, ...]:
    """Return the table of arms."""
    return tuple(
        ArmRow(
            name=shown(arm),
            whole=spread_text(values_of(found, arm)),
            interval=range_text(*ends[arm]),
            sites=tuple(
                spread_text([found.site_value(arm, seed, c.name) for seed in found.seeds])
                for c in found.cohorts
            ),
            privacy=_privacy(found, arm),
        )
        for arm in found.arms
    )


def constants(found: Comparison, ends: Intervals) -> list[str]:
    """Return what is said of models that are no better than a constant, and of the noise."""
    return constant_lines(found, {arm: low for arm, (low, _) in ends.items()})


def constant_text(found: Comparison) -> str:
    """Return the headline of a predictor that looks at nobody."""
    constant = constant_of_arm(found, found.arms[-1])
    return "" if constant is None else f"{constant.value:.3f}"


def range_text(low: float, high: float) -> str:
    """Return an interval, empty when it is not known."""
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.3f} to {high:.3f}"


def _privacy(found: Comparison, arm: Arm) -> str:
    outcome = found.outcomes[arm, found.seeds[0]][0]
    if not outcome.epsilon:
        return ""
    delta = max(outcome.delta.values(), default=math.nan)
    text = f"ε {max(outcome.epsilon.values()):.3g}, δ {delta:.2g}"
    common = max(outcome.common_epsilon.values(), default=math.nan)
    return (
        text
        if delta == COMMON_DELTA or math.isnan(common)
        else (f"{text} (ε {common:.3g} at δ {COMMON_DELTA:.0e})")
    )


def metric_table(found: Comparison) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the head and rows of all metrics by arm, first seed, with intervals."""
    first = found.seeds[0]
    by_arm = [found.metrics(found.merged_scores(arm, first), first) for arm in found.arms]
    names = list(dict.fromkeys(name for metrics in by_arm for name in metrics))
    constant = constant_metrics(found)
    head = ("metric", *(shown(arm) for arm in found.arms), *(["a constant"] if constant else []))
    return head, tuple(
        (
            _sentence_case(metric_words(name)),
            *(_estimate(metrics.get(name)) for metrics in by_arm),
            *([_value(constant.get(name, math.nan))] if constant else []),
        )
        for name in names
    )


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _value(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _estimate(found: Estimate | None) -> str:
    if found is None or math.isnan(found.value):
        return "-"
    between = range_text(found.low, found.high)
    return f"{found.value:.3f}" + (f" ({between})" if between else "")


# --- did it help me? ---------------------------------------------------------------------


def verdict_rows(found: Comparison) -> tuple[VerdictRow, ...]:
    """Return a line for each model at each hospital, harm as well as gain."""
    patients = {c.name: len(c.items) for c in found.cohorts}
    return tuple(
        _verdict_row(site, patients[site], _model_name(name, verdict), gain)
        for site, verdict in found.verdicts.items()
        for name, gain in verdict.gains.items()
    )


_KINDS = {"helped": "helped", "harmed": "harmed", "no difference beyond chance": "same"}


def _model_name(name: Compared, verdict: Verdict) -> str:
    if name == "federated_dp":
        return "the shared model with privacy"
    if name != "chosen":
        return NAMES[name]
    counts = Counter(arm for folds in verdict.chosen for arm in folds)
    total = sum(counts.values())
    listed = ", ".join(
        NAMES[arm] + (f" ({n} of {total})" if total > 1 else "") for arm, n in counts.most_common()
    )
    return f"what it would choose: {listed}"


def _verdict_row(site: str, patients: int, model: str, gain: Estimate) -> VerdictRow:
    known = not math.isnan(gain.value)
    summary = said_of(gain)
    return VerdictRow(
        site=site,
        patients=patients,
        model=model,
        difference=signed(gain.value) if known else "-",
        interval=f"{signed(gain.low)} to {signed(gain.high)}" if known else "-",
        summary=summary,
        kind=_KINDS.get(summary, "unknown"),
    )


def signed(value: float) -> str:
    """Return a difference with its sign; what rounds to zero has none."""
    text = f"{value:+.3f}"
    return "0.000" if text in {"+0.000", "-0.000"} else text


# --- who was left out --------------------------------------------------------------------


def left_out(found: Comparison) -> tuple[LeftOutReason, ...]:
    """Return how many files, rows and patients each reason left out, by hospital."""
    whole = tuple(
        LeftOutReason(site=site, reason="the whole hospital", count=1, remedy=why)
        for site, why in found.left_out.items()
    )
    return whole + tuple(
        LeftOutReason(site=c.name, reason=reason.name, count=count, remedy=reason.value)
        for c in found.cohorts
        for reason, count in c.reasons().most_common()
    )
