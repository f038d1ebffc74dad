"""Admission of a request at a site, decided before its tensors or configuration are read.

In this order, so that the first reason is the one to mend: release, pause, hours, policy,
extensions, approval. Another release's configuration is not even parsed, and every other one is
parsed with bounded work. Each no is a reason that says nothing of any patient; the detail stays
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from client.governance.approvals import Approvals
from client.governance.extensions import judge_extensions
from client.governance.first_weights import judge_first_weights
from client.governance.policy import Denied, PolicyRules, judge, judge_metrics, judge_statistics
from client.site.site_config import SiteConfig
from common.config.run_config import RunConfig, read_config
from common.messages.message_header import request_facts
from common.messages.signed_envelope import message_text
from common.messages.wire import RefusalReason
from common.platform.code_hash import RELEASE, bundle_hash
from common.platform.errors import AnswerNotAdmitted, ConfigurationError

Kind = Literal["proposal", "statistics", "train", "evaluation"]


@dataclass(frozen=True, kw_only=True)
class AskedRequest:
    """What the daemon knows of a request without reading its tensors or its configuration."""

    kind: Kind
    run: str
    round: int
    seed: int
    config: str  # JSON that nobody has looked at


#: Stands for the question of a request that cannot be read; it is answered all the same.
NO_QUESTION = AskedRequest(kind="proposal", run="unreadable", round=0, seed=0, config="")


@dataclass(frozen=True, kw_only=True)
class AdmissionContext:
    """What a site's decision depends on, beside the request."""

    config: SiteConfig
    coordinator: str  # fingerprint of the coordinator's authority
    paused: Path  # exists while the site is paused
    approvals: Approvals


def question_of(header: str) -> AskedRequest:
    """Return the question in a request's header; AnswerNotAdmitted when there is none."""
    try:
        facts = request_facts(message_text(header))
    except ValueError as error:
        message = f"The coordinator's request cannot be read: {error!s:.300}"
        raise AnswerNotAdmitted(message) from error
    return AskedRequest(
        kind=facts.kind, run=facts.run, round=facts.round, seed=facts.seed, config=facts.config
    )


def denied(
    question: AskedRequest, release: str, admission: AdmissionContext, now: datetime
) -> Denied | None:
    """Return why the site does not take part, or None where it does.

    `release` is the hash of the code that the coordinator runs.
    """
    if release != bundle_hash():
        detail = (
            f"the coordinator runs other code (bundle {release[:12]}) than this site's {RELEASE} "
            f"({bundle_hash()[:12]}): install the same release at both"
        )
        return Denied(reason=RefusalReason.RELEASE, detail=detail)
    if admission.paused.exists():
        return Denied(reason=RefusalReason.PAUSED, detail="wardround-site resume ends it")
    if not admission.config.works_at(now):
        detail = f"hours of work are {admission.config.hours}"
        return Denied(reason=RefusalReason.HOURS, detail=detail)
    try:
        config = read_config(question.config, source="the coordinator's configuration")
    except ConfigurationError as error:
        return Denied(reason=RefusalReason.CONFIGURATION, detail=str(error))
    return _not_allowed(question, config, admission)


def _not_allowed(
    question: AskedRequest, config: RunConfig, admission: AdmissionContext
) -> Denied | None:
    """Return why a configuration is not for this site, or not yet."""
    if config.in_force() != config:
        detail = "its privacy section is not in force: a coordinator sends what is trained"
        return Denied(reason=RefusalReason.CONFIGURATION, detail=detail)
    rules = admission.config.policy
    return (
        _out_of_rounds(question, config)
        or judge(config, rules, admission.coordinator, site=admission.config.name)
        or judge_extensions(config, admission.config.extensions)
        or judge_first_weights(config)
        or _may_not_tell(question, config, rules)
        or _approval(question, config, admission)
    )


def _may_not_tell(question: AskedRequest, config: RunConfig, rules: PolicyRules) -> Denied | None:
    """Return why what is asked for may not leave, of a run that may train here."""
    if question.kind == "statistics":
        return judge_statistics(config, rules)
    return judge_metrics(config, rules) if question.kind == "evaluation" else None


def _out_of_rounds(question: AskedRequest, config: RunConfig) -> Denied | None:
    """Return why a round is none of the configuration's: what was approved has an end."""
    last = config.training.rounds
    first = 0 if question.kind in {"proposal", "statistics"} else 1
    if first <= question.round <= last:
        return None
    detail = f"round={question.round}, expected {first} to {last} (training.rounds)"
    return Denied(reason=RefusalReason.CONFIGURATION, detail=detail)


def _taken(question: AskedRequest, config: RunConfig, admission: AdmissionContext) -> Denied | None:
    """Return why a run that nobody was asked about must wait: there are too many of these."""
    if question.kind == "proposal" or admission.approvals.take(config.fingerprint()):
        return None
    detail = (
        "so many configurations were taken without a person's decision that this one waits for "
        f"one; type: wardround-site approve {question.run}"
    )
    return Denied(reason=RefusalReason.NOT_APPROVED, detail=detail)


def _approval(
    question: AskedRequest, config: RunConfig, admission: AdmissionContext
) -> Denied | None:
    """Return why configuration and seed are not approved, after noting that they were asked for.

    What releases something takes up the approval: from then on it is of that seed.
    """
    admission.approvals.note(question.run, config, question.seed)
    answer = admission.approvals.decision(
        config.fingerprint(), question.seed, takes_up=question.kind != "proposal"
    )
    match answer:
        case "approved":
            return None
        case "declined":
            return Denied(reason=RefusalReason.DECLINED, detail="declined by this site's admin")
        case "waiting" if admission.config.policy.approval == "automatic":
            return _taken(question, config, admission)
        case "waiting":
            detail = f"seed {question.seed}; type: wardround-site approve {question.run}"
            return Denied(reason=RefusalReason.NOT_APPROVED, detail=detail)
