"""Facts of a message as strict JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from common.config.run_config import read_config
from common.messages.cohort_statistics import CohortStatistics
from common.messages.wire import (
    Answer,
    EvaluationRequest,
    Message,
    Proposal,
    Refusal,
    RefusalReason,
    Request,
    SiteReport,
    SiteStatistics,
    SiteUpdate,
    Standing,
    StatisticsRequest,
    TrainRequest,
)
from common.metrics.statistics import Statistics
from common.platform.bounded_json import Bounds, check_bounds
from common.privacy.plan import Spend

if TYPE_CHECKING:  # as in wire.py
    from common.data.weights import Weights

#: Of the text of one message's facts. A configuration is text within it, so that its bounds are
#: its own; a report of 20 labels in 1,000 bins each has 60,000 values.
_BOUNDS = Bounds(characters=8 * 1024 * 1024, depth=16, values=1_000_000)


#: Names folders at a site, so it is a plain name.
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
MOST_ROUNDS = 1_000_000
#: Larger numbers are nobody's: whatever is added up or shown of them would overflow.
_Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
#: Hospitals of a region.
_Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1000)
]
#: An error's kind and a line of our code (client/node/failure_place.py), nothing else.
_PLACE = r"^([A-Za-z]{1,60}( at (client|common)/[a-z0-9_/]{1,200}\.py:[0-9]{1,6})?)?$"
_Number = Annotated[float, Field(ge=0, le=1e9)]


class _Header(BaseModel):
    """What all messages say of themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    run: RunName
    round: int = Field(ge=0, le=MOST_ROUNDS)


class _ProposalHeader(_Header):
    kind: Literal["proposal"] = "proposal"
    seed: int
    config: str  # canonical JSON


class _StandingHeader(_Header):
    kind: Literal["standing"] = "standing"
    site: str = Field(max_length=200)
    patients: _Count | None
    epsilon: _Number | None
    epsilon_left: _Number | None
    seconds: _Number | None
    runs_at_once: Annotated[_Count, Field(ge=1)] | None = None


class _StatisticsHeader(_Header):
    kind: Literal["statistics"] = "statistics"
    seed: int
    config: str  # canonical JSON


class _CohortHeader(_Header):
    kind: Literal["cohort"] = "cohort"
    site: str = Field(max_length=200)
    statistics: CohortStatistics
    spend: Spend | None


class _TrainHeader(_Header):
    kind: Literal["train"] = "train"
    seed: int
    config: str  # canonical JSON
    controlled: bool


class _UpdateHeader(_Header):
    kind: Literal["update"] = "update"
    site: str = Field(max_length=200)
    steps: _Count
    controlled: bool
    spend: Spend | None
    sites: _Names = ()


class _EvaluationHeader(_Header):
    kind: Literal["evaluation"] = "evaluation"
    seed: int
    config: str
    split: Literal["validation", "test"]


class _ReportHeader(_Header):
    kind: Literal["report"] = "report"
    site: str = Field(max_length=200)
    statistics: dict[str, object]
    spend: Spend | None
    sites: _Names = ()


class _RefusalHeader(_Header):
    kind: Literal["refusal"] = "refusal"
    site: str = Field(max_length=200)
    reason: str
    place: str = Field(default="", pattern=_PLACE)


_AnyHeader = (
    _ProposalHeader
    | _StandingHeader
    | _StatisticsHeader
    | _CohortHeader
    | _TrainHeader
    | _UpdateHeader
    | _EvaluationHeader
    | _ReportHeader
    | _RefusalHeader
)
_HEADERS: TypeAdapter[_AnyHeader] = TypeAdapter(Annotated[_AnyHeader, Field(discriminator="kind")])


class RequestFacts(BaseModel):
    """What a site must know of a request before it reads its configuration."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    kind: Literal["proposal", "statistics", "train", "evaluation"]
    run: RunName
    round: int = Field(ge=0, le=MOST_ROUNDS)
    seed: int
    config: str  # canonical JSON, not read yet


def request_facts(text: str) -> RequestFacts:
    """Return what a request is, its configuration unread; ValueError for what is none."""
    check_bounds(text, _BOUNDS)
    return RequestFacts.model_validate_json(text)


def parts_of(message: Message) -> tuple[str, dict[str, Weights]]:
    """Return a message's header, as JSON, and its tensors by part."""
    header, tensors = _asked(message) if isinstance(message, Request) else _answered(message)
    return header.model_dump_json(), tensors


def _asked(message: Request) -> tuple[_AnyHeader, dict[str, Weights]]:
    run, number, seed = message.run, message.round, message.seed
    config = message.config.canonical_json()
    match message:
        case Proposal():
            return _ProposalHeader(run=run, round=number, seed=seed, config=config), {}
        case StatisticsRequest():
            return _StatisticsHeader(run=run, round=number, seed=seed, config=config), {}
        case TrainRequest(weights=weights, control=control):
            training = _TrainHeader(
                run=run, round=number, seed=seed, controlled=control is not None, config=config
            )
            return training, {"weights": weights, "control": control or {}}
        case EvaluationRequest(weights=weights):
            measuring = _EvaluationHeader(
                run=run, round=number, seed=seed, split=message.split, config=config
            )
            return measuring, {"weights": weights}
    assert_never(message)


def _answered(message: Answer) -> tuple[_AnyHeader, dict[str, Weights]]:
    run, number, site = message.run, message.round, message.site
    match message:
        case Standing():
            return _StandingHeader(**vars(message)), {}
        case SiteStatistics():
            return _CohortHeader(**vars(message)), {}
        case SiteUpdate(delta=delta, control_delta=control):
            update = _UpdateHeader(
                run=run,
                round=number,
                site=site,
                steps=message.steps,
                controlled=control is not None,
                spend=message.spend,
                sites=message.sites,
            )
            return update, {"delta": delta, "control": control or {}}
        case SiteReport():
            report = _ReportHeader(
                run=run,
                round=number,
                site=site,
                spend=message.spend,
                sites=message.sites,
                statistics=message.statistics.to_json(),
            )
            return report, {}
        case Refusal():
            refusal = _RefusalHeader(
                run=run, round=number, site=site, reason=message.reason.name, place=message.place
            )
            return refusal, {}
    assert_never(message)


def message_of(text: str, tensors: Mapping[str, Weights]) -> Message:
    """Return the message of a header and its tensors by part.

    KeyError, TypeError, ValueError or WardroundError where it is not exactly one.
    """
    check_bounds(text, _BOUNDS)
    header = _HEADERS.validate_json(text)
    return _request(header, tensors) or _answer(header, tensors)


def _request(header: _AnyHeader, tensors: Mapping[str, Weights]) -> Request | None:
    run, number = header.run, header.round
    match header:
        case _ProposalHeader():
            config = read_config(header.config)
            return Proposal(run=run, round=number, seed=header.seed, config=config)
        case _StatisticsHeader():
            config = read_config(header.config)
            return StatisticsRequest(run=run, round=number, seed=header.seed, config=config)
        case _TrainHeader():
            return TrainRequest(
                run=run,
                round=number,
                seed=header.seed,
                config=read_config(header.config),
                weights=tensors["weights"],
                control=tensors["control"] if header.controlled else None,
            )
        case _EvaluationHeader():
            return EvaluationRequest(
                run=run,
                round=number,
                seed=header.seed,
                config=read_config(header.config),
                weights=tensors["weights"],
                split=header.split,
            )
        case _:
            return None


def _answer(header: _AnyHeader, tensors: Mapping[str, Weights]) -> Answer:
    run, number = header.run, header.round
    match header:
        case _StandingHeader():
            return Standing(**header.model_dump(exclude={"kind"}))
        case _CohortHeader():
            return SiteStatistics(
                run=run,
                round=number,
                site=header.site,
                statistics=header.statistics,
                spend=header.spend,
            )
        case _UpdateHeader():
            return SiteUpdate(
                run=run,
                round=number,
                site=header.site,
                delta=tensors["delta"],
                control_delta=tensors["control"] if header.controlled else None,
                steps=header.steps,
                spend=header.spend,
                sites=header.sites,
            )
        case _ReportHeader():
            return SiteReport(
                run=run,
                round=number,
                site=header.site,
                spend=header.spend,
                sites=header.sites,
                statistics=Statistics.from_json(header.statistics),
            )
        case _RefusalHeader():
            reason = RefusalReason[header.reason]
            return Refusal(
                run=run, round=number, site=header.site, reason=reason, place=header.place
            )
        case _:
            message = f"a header of kind {header.kind} has no reader"
            raise ValueError(message)
