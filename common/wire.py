"""All that travels between coordinator and site; nothing else may leave a hospital.

Over Flower each message is one RecordDict: a header of canonical JSON, and tensors as the raw
little-endian bytes of float32. Reading one never runs code of the sender's, and refuses what is
not exactly a message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Literal, assert_never

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from common.config import RunConfig, parse_config
from common.errors import UpdateRefused, WardroundError
from common.metrics import Statistics
from common.privacy.plan import Spend
from common.weights import Weights

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, RecordDict


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


Message = TrainRequest | SiteUpdate | EvaluationRequest | SiteReport | Refusal

# --- as Flower's records -------------------------------------------------------------------

#: How a tensor's bytes are to be read; Flower's own form carries a pickled header of numpy's.
_TENSOR = "float32-little-endian"
_HEADER = "message"


class _Header(BaseModel):
    """What all messages say of themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    run: str = Field(max_length=200)
    round: int = Field(ge=0)


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


_AnyHeader = _TrainHeader | _UpdateHeader | _EvaluationHeader | _ReportHeader | _RefusalHeader
_HEADERS: TypeAdapter[_AnyHeader] = TypeAdapter(Annotated[_AnyHeader, Field(discriminator="kind")])


def to_record(message: Message) -> RecordDict:
    """Return a message as Flower sends it."""
    from flwr.app import ConfigRecord, RecordDict

    header, tensors = _parts(message)
    record = RecordDict({_HEADER: ConfigRecord({"json": header.model_dump_json()})})
    for name, weights in tensors.items():
        record[name] = to_arrays(weights)
    return record


def from_record(record: RecordDict) -> Message:
    """Read what to_record made; UpdateRefused says what is no message of ours."""
    try:
        header = _HEADERS.validate_json(str(record.config_records[_HEADER]["json"]))
        tensors = {name: from_arrays(arrays) for name, arrays in record.array_records.items()}
        return _message(header, tensors)
    except (KeyError, TypeError, ValueError, WardroundError) as error:
        message = f"A message from Flower cannot be read: {error!s:.300}. Is its sender ours?"
        raise UpdateRefused(message) from error


def to_arrays(weights: Weights) -> ArrayRecord:
    """Return tensors as Flower sends them, bit for bit."""
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({
        name: Array(
            dtype="float32", shape=tuple(value.shape), stype=_TENSOR,
            data=value.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes(),
        )
        for name, value in weights.items()
    })  # fmt: skip


def from_arrays(arrays: ArrayRecord) -> dict[str, torch.Tensor]:
    """Read what to_arrays made; ValueError for another form, or another number of bytes."""
    found = {}
    for name, array in arrays.items():
        if (array.stype, array.dtype) != (_TENSOR, "float32"):
            message = f"tensor {name} has the form {array.stype} {array.dtype}, expected {_TENSOR}"
            raise ValueError(message)
        shape = tuple(array.shape)
        if any(length < 0 for length in shape) or len(array.data) != 4 * math.prod(shape):
            message = f"tensor {name} has {len(array.data)} bytes for the shape {shape}"
            raise ValueError(message)
        values = np.frombuffer(array.data, "<f4").astype(np.float32)  # a copy: theirs is read-only
        found[name] = torch.from_numpy(values).reshape(shape)
    return found


def _parts(message: Message) -> tuple[_AnyHeader, dict[str, Weights]]:
    """Return a message's header and its tensors."""
    run, number = message.run, message.round
    header: _AnyHeader
    match message:
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


def _message(header: _AnyHeader, tensors: Mapping[str, Weights]) -> Message:
    """Return the message of a header and its tensors; KeyError and ValueError where one lacks."""
    run, number = header.run, header.round
    match header:
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
