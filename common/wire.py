"""All that travels between coordinator and site; nothing else may leave a hospital."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from common.config import RunConfig
from common.metrics import Statistics
from common.privacy.plan import Spend
from common.weights import Weights


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """Train one round from these weights."""

    run: str
    round: int  # 1 is the first
    seed: int  # initial weights and data order; never the noise of privacy
    config: RunConfig
    weights: Weights  # the shared part: what travels and is aggregated
    control: Weights | None = None  # SCAFFOLD's server control variate c


@dataclass(frozen=True, kw_only=True)
class SiteUpdate:
    """A site's answer to a TrainRequest; with privacy on, the delta is clipped and noised."""

    run: str
    round: int
    site: str
    delta: Weights  # weights after - weights before, of the shared part
    control_delta: Weights | None = None  # SCAFFOLD: change of the site's control variate
    steps: int  # local steps taken
    spend: Spend | None = None  # None: this run has no privacy


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Measure these weights on one split."""

    run: str
    round: int
    seed: int
    config: RunConfig
    weights: Weights
    split: Literal["validation", "test"]


@dataclass(frozen=True, kw_only=True)
class SiteReport:
    """A site's answer to an EvaluationRequest: mergeable counts, no patient's score."""

    run: str
    round: int
    site: str
    statistics: Statistics
    spend: Spend | None = None  # of the noise on the counts, where asked for


class RefusalReason(Enum):
    """Why a site does not take part; says nothing about any patient."""

    TOO_FEW_PATIENTS = "fewer usable patients than the run needs"
    BUDGET = "the privacy budget of this cohort does not allow it"
    CONFIGURATION = "the configuration does not fit this site's data"
    POLICY = "the site's policy does not allow this run"
    FAILED = "the site failed; its own log says why"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A site's answer instead of an update or a report."""

    run: str
    round: int
    site: str
    reason: RefusalReason
