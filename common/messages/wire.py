"""Messages between coordinator and site; nothing else may leave a hospital.

How a message is written down: message_headers (its facts, as strict JSON), envelope (with its
tensors packed, as between hospitals) and flower_records (as Flower's records, on one machine).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from common.config.run_config import RunConfig
from common.messages.cohort_statistics import CohortStatistics
from common.messages.refusals import RefusalReason
from common.privacy.plan import Spend

if TYPE_CHECKING:  # torch takes a second to load, and a daemon and the service need none of it
    from common.data.weights import Weights
    from common.metrics.statistics import Statistics

__all__ = [
    "Answer",
    "EvaluationRequest",
    "Message",
    "Proposal",
    "Refusal",
    "RefusalReason",
    "Request",
    "SiteReport",
    "SiteStatistics",
    "SiteUpdate",
    "Standing",
    "StatisticsRequest",
    "TrainRequest",
]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Would you take part in this run? Asked before the first round; round is 0."""

    run: str
    round: int
    seed: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A site's answer to a Proposal it would take part in; what it would cost its patients."""

    run: str
    round: int
    site: str
    patients: int | None  # training patients; None: the site does not tell
    epsilon: float | None  # of the whole run here; None: no privacy, or not told
    epsilon_left: float | None  # of the cohort's limit after the run; None: likewise
    seconds: float | None  # of one round here, estimated; None: not known
    runs_at_once: int | None = None  # that the site serves for one coordinator; None: any number


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest:
    """Describe your cohort for this run, in counts; asked once, before round 1; round is 0."""

    run: str
    round: int
    seed: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class SiteStatistics:
    """A site's answer to a StatisticsRequest: counts of many patients, nothing of any one."""

    run: str
    round: int
    site: str
    statistics: CohortStatistics
    spend: Spend | None = None  # of the noise on the counts, where there is any


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
    sites: tuple[str, ...] = ()  # of a region: whose updates it is the mean of


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
    sites: tuple[str, ...] = ()  # of a region: whose reports it is the sum of


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A site's answer instead of an update or a report."""

    run: str
    round: int
    site: str
    reason: RefusalReason
    place: str = ""  # of a failure, in the site's code; empty: not told

    @property
    def told(self) -> str:
        """Return the reason in words, with the place where there is one."""
        return f"{self.reason.value} ({self.place})" if self.place else self.reason.value


Request = Proposal | StatisticsRequest | TrainRequest | EvaluationRequest
Answer = Standing | SiteStatistics | SiteUpdate | SiteReport | Refusal
Message = Request | Answer
