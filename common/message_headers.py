"""The facts of a message as strict JSON; reading one never runs code of the sender's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from common.cohort_statistics import CohortStatistics
from common.config import parse_config
from common.metrics import Statistics
from common.privacy.plan import Spend
from common.weights import Weights
from common.wire import (
    EvaluationRequest,
    Message,
    Proposal,
    Refusal,
    RefusalReason,
    SiteReport,
    SiteStatistics,
    SiteUpdate,
    Standing,
    StatisticsRequest,
    TrainRequest,
)


class _Header(BaseModel):
    """What all messages say of themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: Names folders at a site, so it is a plain name.
    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
    round: int = Field(ge=0)


class _ProposalHeader(_Header):
    kind: Literal["proposal"] = "proposal"
    seed: int
    config: str  # canonical JSON


class _StandingHeader(_Header):
    kind: Literal["standing"] = "standing"
    site: str = Field(max_length=200)
    patients: int | None = Field(ge=0)
    epsilon: float | None = Field(ge=0)
    epsilon_left: float | None = Field(ge=0)
    seconds: float | None = Field(ge=0)


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
    steps: int = Field(ge=0)
    controlled: bool
    spend: Spend | None


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


class _RefusalHeader(_Header):
    kind: Literal["refusal"] = "refusal"
    site: str = Field(max_length=200)
    reason: str


_AnyHeader = (
    _ProposalHeader | _StandingHeader | _StatisticsHeader | _CohortHeader | _TrainHeader
    | _UpdateHeader | _EvaluationHeader | _ReportHeader | _RefusalHeader
)  # fmt: skip
_HEADERS: TypeAdapter[_AnyHeader] = TypeAdapter(Annotated[_AnyHeader, Field(discriminator="kind")])


def parts_of(message: Message) -> tuple[str, dict[str, Weights]]:
    """Return a message's header, as JSON, and its tensors by part."""
    header, tensors = _parts(message)
    return header.model_dump_json(), tensors


def _parts(  # noqa: PLR0911 - one for each kind of message
    message: Message,
) -> tuple[_AnyHeader, dict[str, Weights]]:
    run, number = message.run, message.round
    header: _AnyHeader
    match message:
        case Proposal():
            proposal = _ProposalHeader(
                run=run, round=number, seed=message.seed, config=message.config.canonical_json()
            )
            return proposal, {}
        case Standing():
            return _StandingHeader(**vars(message)), {}
        case StatisticsRequest():
            header = _StatisticsHeader(
                run=run, round=number, seed=message.seed, config=message.config.canonical_json()
            )
            return header, {}
        case SiteStatistics():
            return _CohortHeader(**vars(message)), {}
        case TrainRequest(weights=weights, control=control):
            header = _TrainHeader(
                run=run, round=number, seed=message.seed, controlled=control is not None,
                config=message.config.canonical_json(),
            )  # fmt: skip
            return header, {"weights": weights, "control": control or {}}
        case EvaluationRequest(weights=weights):
            header = _EvaluationHeader(
                run=run, round=number, seed=message.seed, split=message.split,
                config=message.config.canonical_json(),
            )  # fmt: skip
            return header, {"weights": weights}
        case SiteUpdate(delta=delta, control_delta=control):
            header = _UpdateHeader(
                run=run, round=number, site=message.site, steps=message.steps,
                controlled=control is not None, spend=message.spend,
            )  # fmt: skip
            return header, {"delta": delta, "control": control or {}}
        case SiteReport():
            header = _ReportHeader(
                run=run, round=number, site=message.site, spend=message.spend,
                statistics=message.statistics.to_json(),
            )  # fmt: skip
            return header, {}
        case Refusal():
            reason = message.reason.name
            return _RefusalHeader(run=run, round=number, site=message.site, reason=reason), {}
    assert_never(message)


def message_of(  # noqa: PLR0911 - one for each kind of message
    text: str, tensors: Mapping[str, Weights]
) -> Message:
    """Return the message of a header and its tensors by part.

    KeyError, TypeError, ValueError or WardroundError where it is not exactly one.
    """
    header = _HEADERS.validate_json(text)
    run, number = header.run, header.round
    match header:
        case _ProposalHeader():
            return Proposal(
                run=run, round=number, seed=header.seed, config=parse_config(header.config)
            )
        case _StandingHeader():
            return Standing(**header.model_dump(exclude={"kind"}))
        case _StatisticsHeader():
            return StatisticsRequest(
                run=run, round=number, seed=header.seed, config=parse_config(header.config)
            )
        case _CohortHeader():
            return SiteStatistics(
                run=run, round=number, site=header.site, statistics=header.statistics,
                spend=header.spend,
            )  # fmt: skip
        case _TrainHeader():
            return TrainRequest(
                run=run, round=number, seed=header.seed, config=parse_config(header.config),
                weights=tensors["weights"],
                control=tensors["control"] if header.controlled else None,
            )  # fmt: skip
        case _EvaluationHeader():
            return EvaluationRequest(
                run=run, round=number, seed=header.seed, config=parse_config(header.config),
                weights=tensors["weights"], split=header.split,
            )  # fmt: skip
        case _UpdateHeader():
            return SiteUpdate(
                run=run, round=number, site=header.site, delta=tensors["delta"],
                control_delta=tensors["control"] if header.controlled else None,
                steps=header.steps, spend=header.spend,
            )  # fmt: skip
        case _ReportHeader():
            return SiteReport(
                run=run, round=number, site=header.site, spend=header.spend,
                statistics=Statistics.from_json(header.statistics),
            )  # fmt: skip
        case _RefusalHeader():
            reason = RefusalReason[header.reason]
            return Refusal(run=run, round=number, site=header.site, reason=reason)
    assert_never(header)
