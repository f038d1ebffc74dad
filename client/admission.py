"""Whether a site takes part in what it is asked: decided before anything of it is read.

In this order, so that the first reason is the one to mend: release, pause, hours, policy,
approval. Each no is a reason that says nothing of any patient; the detail stays here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from client.approvals import Approvals
from client.policy import Denied, PolicyRules, judge, judge_metrics, judge_statistics
from client.site_config import SiteConfig
from common.config import RunConfig, parse_config
from common.errors import UpdateRefused, WardroundError
from common.release import RELEASE, bundle_hash
from common.wire import RefusalReason

Kind = Literal["proposal", "statistics", "train", "evaluation"]
_KIND: TypeAdapter[Kind] = TypeAdapter(Kind)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the daemon knows of a request without reading its tensors."""

    kind: Kind
    run: str
    round: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class House:
    """What a site's decision depends on, beside the request."""

    config: SiteConfig
    coordinator: str  # fingerprint of the coordinator's authority
    paused: Path  # exists while the site is paused
    approvals: Approvals


def question_of(facts: Mapping[str, object]) -> Question:
    """Return the question in a request's facts; UpdateRefused when there is none."""
    try:
        number = facts["round"]
        if not isinstance(number, int):
            message = f"round={number!r} is no number"
            raise TypeError(message)
        return Question(
            kind=_KIND.validate_python(facts["kind"]), run=str(facts["run"]), round=number,
            config=parse_config(str(facts["config"]), source="the coordinator's configuration"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, WardroundError) as error:
        message = f"The coordinator's request cannot be read: {error!s:.300}"
        raise UpdateRefused(message) from error


def denied(question: Question, release: str, house: House, now: datetime) -> Denied | None:
    """Return why the site does not take part, or None where it does.

    `release` is the hash of the code that the coordinator runs.
    """
    if release != bundle_hash():
        detail = (
            f"the coordinator runs other code (bundle {release[:12]}) than this site's {RELEASE} "
            f"({bundle_hash()[:12]}): install the same release at both"
        )
        return Denied(reason=RefusalReason.RELEASE, detail=detail)
    if house.paused.exists():
        return Denied(reason=RefusalReason.PAUSED, detail="wardround-site resume ends it")
    if not house.config.works_at(now):
        detail = f"hours of work are {house.config.hours}"
        return Denied(reason=RefusalReason.HOURS, detail=detail)
    config = question.config
    if config.in_force() != config:
        detail = "its privacy section is not in force: a coordinator sends what is trained"
        return Denied(reason=RefusalReason.CONFIGURATION, detail=detail)
    rules = house.config.policy
    return (
        _out_of_rounds(question)
        or judge(config, rules, house.coordinator, site=house.config.name)
        or _may_not_tell(question, rules)
        or _approval(question, house)
    )


def _may_not_tell(question: Question, rules: PolicyRules) -> Denied | None:
    """Return why what is asked for may not leave, of a run that may train here."""
    if question.kind == "statistics":
        return judge_statistics(rules)
    return judge_metrics(question.config, rules) if question.kind == "evaluation" else None


def _out_of_rounds(question: Question) -> Denied | None:
    """Return why a round is none of the configuration's: what was approved has an end."""
    last = question.config.training.rounds
    first = 0 if question.kind in {"proposal", "statistics"} else 1
    if first <= question.round <= last:
        return None
    detail = f"round={question.round}, expected {first} to {last} (training.rounds)"
    return Denied(reason=RefusalReason.CONFIGURATION, detail=detail)


def _approval(question: Question, house: House) -> Denied | None:
    """Return why the configuration is not approved, after noting that it was asked for."""
    house.approvals.note(question.run, question.config)
    match house.approvals.decision(question.config.fingerprint()):
        case "approved":
            return None
        case "declined":
            return Denied(reason=RefusalReason.DECLINED, detail="declined by this site's admin")
        case "waiting" if house.config.policy.approval == "automatic":
            return None
        case "waiting":
            detail = f"type: wardround-site approve {question.run}"
            return Denied(reason=RefusalReason.NOT_APPROVED, detail=detail)
