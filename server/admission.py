"""Which updates enter the model: everything else is refused with a reason, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from common.weights import Weights, norm
from common.wire import Refusal, SiteReport, SiteUpdate, TrainRequest

#: An update farther than this many times the norm of the weights (at least 1) is no training step.
_LARGEST_STEP = 1e4


class Fault(Enum):
    """Why an update was not admitted."""

    WRONG_RUN = "it answers another run"
    WRONG_ROUND = "it answers another round"
    UNKNOWN_SITE = "this site was not asked"
    DUPLICATE = "this site has answered already"
    WRONG_TENSORS = "its tensors differ in name, shape or type from the model's"
    NOT_FINITE = "it holds values that are not finite"
    TOO_LARGE = "its norm is out of all proportion to the weights"
    NO_SPEND = "the run is private and the update says nothing of its charge"
    NO_CONTROL = "the run uses SCAFFOLD and the update has no fitting control variate"


@dataclass(frozen=True, kw_only=True)
class NotAdmitted:
    """A site's answer that was left out, for the journal."""

    site: str
    fault: Fault


def admit(
    answers: Iterator[SiteUpdate | Refusal], request: TrainRequest, asked: Sequence[str]
) -> Iterator[SiteUpdate | Refusal | NotAdmitted]:
    """Pass on each answer, or the reason why it was not admitted; each site counts once."""
    seen: set[str] = set()
    for answer in answers:
        fault = _placement(answer, request, asked, seen)
        if fault is None and isinstance(answer, SiteUpdate):
            fault = check(answer, request)
        if fault is not None:
            yield NotAdmitted(site=answer.site, fault=fault)
            continue
        seen.add(answer.site)
        yield answer


def _placement(
    answer: SiteUpdate | SiteReport | Refusal,
    request: TrainRequest,
    asked: Sequence[str],
    seen: set[str],
) -> Fault | None:
    if answer.run != request.run:
        return Fault.WRONG_RUN
    if answer.round != request.round:
        return Fault.WRONG_ROUND
    if answer.site not in asked:
        return Fault.UNKNOWN_SITE
    return Fault.DUPLICATE if answer.site in seen else None


def check(update: SiteUpdate, request: TrainRequest) -> Fault | None:
    """Return what is wrong with an update's content, or None."""
    if not _alike(update.delta, request.weights):
        return Fault.WRONG_TENSORS
    if not all(bool(torch.isfinite(v).all()) for v in update.delta.values()):
        return Fault.NOT_FINITE
    if norm(update.delta) > _LARGEST_STEP * max(1.0, norm(request.weights)):
        return Fault.TOO_LARGE
    if request.config.privacy != "none" and update.spend is None:
        return Fault.NO_SPEND
    if request.control is not None and not _control_fits(update, request.weights):
        return Fault.NO_CONTROL
    return None


def _control_fits(update: SiteUpdate, weights: Weights) -> bool:
    change = update.control_delta
    return (
        change is not None
        and _alike(change, weights)
        and all(bool(torch.isfinite(v).all()) for v in change.values())
    )


def _alike(left: Weights, right: Weights) -> bool:
    return set(left) == set(right) and all(
        left[n].shape == v.shape and left[n].dtype == v.dtype for n, v in right.items()
    )
