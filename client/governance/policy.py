"""A hospital's policy applied to a run's configuration.

Guarantee: a judgement is a function of the run's configuration, the site's rules and the
coordinator's certificate. No patient is read for it, so the reason that the coordinator is
given tells nothing of any. What exactly was not allowed (`Denied.detail`) stays at the site.

    a run asks for two things that are not allowed   the first rule in the order below is told
    a run's privacy section names another network    the network in force is judged
    the configuration says epsilon 3 at delta 0.5    EPSILON: a bound that does not bind
    a site is paused, out of hours, or not asked     not here: that depends on time and people
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from client.site.policy_section import PolicyRules
from common.config.run_config import RunConfig
from common.messages.wire import RefusalReason
from common.platform.errors import ConfigurationError

__all__ = ["Denied", "PolicyRules", "columns_of", "judge", "judge_metrics", "judge_statistics"]


@dataclass(frozen=True, kw_only=True)
class Denied:
    """A rule that a run does not keep to."""

    reason: RefusalReason  # the coordinator is told this
    detail: str  # what, and how the site's admin could allow it; stays here


def judge(
    config: RunConfig, rules: PolicyRules, coordinator_fingerprint: str, site: str = ""
) -> Denied | None:
    """Return the first rule that the run does not keep to, or None: it may be asked of people.

    `coordinator_fingerprint` is the SHA-256 of its CA certificate (DER), in hex; `site` is this
    site's name, by which a run may agree on its patients in public.
    """
    run = config.in_force()
    checks: tuple[Callable[[], Denied | None], ...] = (
        lambda: _coordinator(rules, coordinator_fingerprint),
        lambda: _task(run, rules),
        lambda: _targets(run, rules),
        lambda: _columns(run, rules),
        lambda: _network(run, rules),
        lambda: _files(run, rules),
        lambda: _privacy(run, rules),
        lambda: _cohort(run, rules),
        lambda: _cell(run, rules),
        lambda: _count(run, rules, site),
    )
    return next((denied for check in checks if (denied := check()) is not None), None)


def judge_metrics(config: RunConfig, rules: PolicyRules) -> Denied | None:
    """Return why counts that measure a model may not leave, or None where they may.

    A run that a site may train for goes on when the site does not measure.
    """
    noise, private = config.evaluation.count_noise, config.privacy != "none"
    if rules.metrics == "none":
        return Denied(reason=RefusalReason.METRICS, detail="policy.metrics is none")
    if noise > 0:
        return None
    if private:
        detail = f"evaluation.count_noise is {noise}: a private run is measured by noised counts"
        return Denied(reason=RefusalReason.METRICS, detail=detail)
    if rules.metrics == "noised":
        detail = f"evaluation.count_noise is {noise}, policy.metrics allows noised counts only"
        return Denied(reason=RefusalReason.METRICS, detail=detail)
    return None


def judge_statistics(config: RunConfig, rules: PolicyRules) -> Denied | None:
    """Return why counts that describe the cohort may not leave, or None where they may.

    A run goes on without them.
    """
    if not rules.statistics:
        return Denied(reason=RefusalReason.STATISTICS, detail="policy.statistics is false")
    if config.privacy == "none" or rules.statistics_noise > 0:
        return None
    detail = "policy.statistics_noise is 0, and a private run is told of the cohort with noise only"
    return Denied(reason=RefusalReason.STATISTICS, detail=detail)


def columns_of(config: RunConfig) -> tuple[str, ...]:
    """Return the other columns of labels.csv that a run reads."""
    cohort = config.cohort
    table = cohort.table
    found: list[str] = []
    if table is not None:
        found += [c.column for c in table.numbers] + [c.column for c in table.categories]
    side = None if cohort.images is None else cohort.images.laterality_column
    found += [n for n in (cohort.split.column, cohort.confounder, side) if n is not None]
    return tuple(dict.fromkeys(found))


def _coordinator(rules: PolicyRules, fingerprint: str) -> Denied | None:
    plain = fingerprint.replace(":", "").lower()
    return _outside((plain,), rules.coordinators, RefusalReason.COORDINATOR, "coordinators")


def _task(run: RunConfig, rules: PolicyRules) -> Denied | None:
    return _outside((run.task.kind,), rules.tasks, RefusalReason.TASK, "tasks")


def _targets(run: RunConfig, rules: PolicyRules) -> Denied | None:
    return _outside(run.task.outcome_columns, rules.targets, RefusalReason.TARGET, "targets")


def _columns(run: RunConfig, rules: PolicyRules) -> Denied | None:
    return _outside(columns_of(run), rules.columns, RefusalReason.COLUMNS, "columns")


def _network(run: RunConfig, rules: PolicyRules) -> Denied | None:
    return _outside((run.model.network,), rules.networks, RefusalReason.NETWORK, "networks")


def _files(run: RunConfig, rules: PolicyRules) -> Denied | None:
    images = run.cohort.images
    if images is None or images.format == "dicom" or rules.allow_files:
        return None
    detail = (
        "cohort.images.format is files, and policy.allow_files is false: such images do not say "
        "whose they are"
    )
    return Denied(reason=RefusalReason.FILES, detail=detail)


def _outside(
    asked: Iterable[str],
    allowed: tuple[str, ...] | Literal["any"],
    reason: RefusalReason,
    rule: str,
) -> Denied | None:
    missing = [] if allowed == "any" else [name for name in asked if name not in allowed]
    if not missing:
        return None
    detail = f"{', '.join(missing)} is not in policy.{rule}: [{', '.join(allowed)}]"
    return Denied(reason=reason, detail=detail)


def _privacy(run: RunConfig, rules: PolicyRules) -> Denied | None:
    privacy = run.privacy
    if privacy == "none":
        if not rules.private_only:
            return None
        detail = "the run has no privacy, and policy.private_only is true"
        return Denied(reason=RefusalReason.PRIVACY, detail=detail)
    if not privacy.epsilon <= rules.largest_epsilon_per_run:
        detail = (
            f"epsilon {privacy.epsilon:g} is above policy.largest_epsilon_per_run "
            f"{rules.largest_epsilon_per_run:g}"
        )
        return Denied(reason=RefusalReason.EPSILON, detail=detail)
    # Without a number it is 1 / (10 x training patients), so at most this.
    delta = privacy.delta if privacy.delta != "per_site" else 0.1 / run.cohort.smallest_cohort
    if not delta <= rules.largest_delta:
        detail = f"delta may be {delta:g}, above policy.largest_delta {rules.largest_delta:g}"
        return Denied(reason=RefusalReason.EPSILON, detail=detail)
    return None


def _cohort(run: RunConfig, rules: PolicyRules) -> Denied | None:
    return _below(
        run.cohort.smallest_cohort,
        rules.smallest_cohort,
        RefusalReason.COHORT,
        ("cohort.smallest_cohort", "smallest_cohort"),
    )


def _cell(run: RunConfig, rules: PolicyRules) -> Denied | None:
    return _below(
        run.evaluation.smallest_cell,
        rules.smallest_cell,
        RefusalReason.CELL,
        ("evaluation.smallest_cell", "smallest_cell"),
    )


def _below(asked: int, least: int, reason: RefusalReason, names: tuple[str, str]) -> Denied | None:
    if asked >= least:
        return None
    return Denied(reason=reason, detail=f"{names[0]} is {asked}, below policy.{names[1]} {least}")


def _count(run: RunConfig, rules: PolicyRules, site: str) -> Denied | None:
    """Refuse a private run that tells the number of training patients, where that is not told."""
    privacy = run.privacy
    if privacy == "none":
        return None
    try:
        declares = privacy.declares(site)
    except ConfigurationError as error:
        return Denied(reason=RefusalReason.CONFIGURATION, detail=str(error))
    if not declares or rules.tell_patients is True:
        return None
    detail = (
        "each update would tell how many patients train (privacy.default_patients: declared), and "
        f"policy.tell_patients is {rules.tell_patients}; the run needs privacy.public_patients"
    )
    return Denied(reason=RefusalReason.METRICS, detail=detail)
