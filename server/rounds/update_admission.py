"""Admission of answers into the model; one that is not admitted has a fault, and the run goes on.

A late answer is told by server/rounds/late_answers.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from common.data.weights import Weights
from common.messages.packed_weights import PackedWeights
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.metrics.statistics import Statistics
from common.platform.errors import AnswerNotAdmitted
from common.privacy.plan import LedgerHead, Spend
from server.rounds.non_admission_reasons import Fault

#: Where each site's ledger stood when it last answered in this run, by site.
Ledgers = Mapping[str, LedgerHead]
_NONE_KNOWN: Ledgers = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class NotAdmitted:
    """A site's answer that was left out, for the journal."""

    site: str
    fault: Fault
    detail: str  # name, value, expected
    used_up: bool  # True: this was the site's one answer of the round


class FaultyAnswer(AnswerNotAdmitted):
    """An answer that is not admitted, and why."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = detail


def admit(
    answers: Iterator[SiteUpdate | Refusal | NotAdmitted],
    request: TrainRequest,
    asked: Sequence[str],
    ledgers: Ledgers = _NONE_KNOWN,
) -> Iterator[SiteUpdate | Refusal | NotAdmitted]:
    """Pass on each answer, or the reason why it was not admitted; each site counts once.

    Of the sites in `ledgers` no charge is admitted that does not come after the one there.
    """
    ceiling = request.config.aggregation.largest_update * max(1.0, norm(request.weights))
    return _admit(answers, request, asked, lambda update: check(update, request, ceiling, ledgers))


def _admit(
    answers: Iterator[SiteUpdate | Refusal | NotAdmitted],
    request: TrainRequest,
    asked: Sequence[str],
    check_content: Callable[[SiteUpdate], None],
) -> Iterator[SiteUpdate | Refusal | NotAdmitted]:
    seen: set[str] = set()
    for answer in answers:
        if isinstance(answer, NotAdmitted):  # where it arrived
            yield answer
            continue
        placed, passed = False, list[SiteUpdate | Refusal | NotAdmitted]()
        try:
            _check_place(answer, request, asked, seen)
            placed = True
            seen.add(answer.site)
            if isinstance(answer, SiteUpdate):
                check_content(answer)
        except FaultyAnswer as error:
            passed.append(_not_admitted(answer.site, error, used_up=placed))
        else:
            passed.append(answer)
        # A generator keeps its locals while it waits: this update must not live beside the next.
        del answer
        yield passed.pop()


def _not_admitted(site: str, error: FaultyAnswer, *, used_up: bool) -> NotAdmitted:
    return NotAdmitted(site=site, fault=error.fault, detail=error.detail, used_up=used_up)


def _check_place(
    answer: SiteUpdate | SiteReport | Refusal,
    request: TrainRequest | EvaluationRequest,
    asked: Sequence[str],
    seen: set[str],
) -> None:
    if answer.run != request.run:
        raise FaultyAnswer(Fault.WRONG_RUN, f"run={answer.run!r}, expected {request.run!r}")
    if answer.round != request.round:
        raise FaultyAnswer(Fault.WRONG_ROUND, f"round={answer.round}, expected {request.round}")
    if answer.site not in asked:
        raise FaultyAnswer(Fault.UNKNOWN_SITE, f"asked were {', '.join(asked)}")
    if answer.site in seen:
        raise FaultyAnswer(Fault.DUPLICATE, "the first answer of the round counts")


def check(
    update: SiteUpdate, request: TrainRequest, ceiling: float, ledgers: Ledgers = _NONE_KNOWN
) -> None:
    """Raise FaultyAnswer when an update's content does not fit the request."""
    _check_sites(update, request)
    _check_tensors(update.delta, request.weights, Fault.WRONG_TENSORS)
    length = norm(update.delta)
    if not math.isfinite(length):
        raise FaultyAnswer(Fault.NOT_FINITE, f"norm={length}")
    if length > ceiling:
        raise FaultyAnswer(Fault.TOO_LARGE, f"norm={length:.4g}, expected at most {ceiling:.4g}")
    if request.config.privacy != "none":
        if update.spend is None:
            raise FaultyAnswer(Fault.NO_SPEND, "spend is missing")
        _check_spend(update.spend, ledgers.get(update.site))
    if request.control is not None:
        if update.control_delta is None:
            raise FaultyAnswer(Fault.NO_CONTROL, "control_delta is missing")
        _check_tensors(update.control_delta, request.control, Fault.NO_CONTROL)
        if not math.isfinite(norm(update.control_delta)):
            raise FaultyAnswer(Fault.NOT_FINITE, "of control_delta")


def _check_sites(
    answer: SiteUpdate | SiteReport, request: TrainRequest | EvaluationRequest
) -> None:
    """Check that an answer is a hospital's own, or that of a region's hospitals, each once."""
    named = request.config.aggregation.regions.get(answer.site, ())
    if not named and not answer.sites:
        return
    own = set(answer.sites)
    if len(own) < 2 or len(own) != len(answer.sites) or not own <= set(named):
        raise FaultyAnswer(
            Fault.WRONG_SITES,
            f"sites={', '.join(answer.sites)[:200]}, expected at least two of {', '.join(named)}",
        )


def norm(weights: Weights) -> float:
    """Return the L2 norm; not finite when any value is not.

    In the tensors' own precision: one pass as fast as reading that also finds nan and
    infinity, which `isfinite` would take 40 times as long for. Values whose squares overflow
    count as infinite; no training step is that long.
    """
    if isinstance(weights, PackedWeights):
        return weights.norm
    flat = (value.reshape(-1) for value in weights.values())
    return math.sqrt(sum(float(torch.dot(values, values)) for values in flat))


def _check_tensors(found: Weights, expected: Weights, fault: Fault) -> None:
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        raise FaultyAnswer(fault, f"missing or not asked for: {', '.join(odd[:5])}")
    forms = _forms(found)
    for name, (dtype, shape) in _forms(expected).items():
        if forms[name] != (dtype, shape):
            one, own = forms[name]
            raise FaultyAnswer(fault, f"{name} is {one} {own}, expected {dtype} {shape}")


def _forms(weights: Weights) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return type and shape of each tensor; packed ones are float32 and stay packed."""
    if isinstance(weights, PackedWeights):
        return {name: (torch.float32, shape) for name, shape in weights.shapes.items()}
    return {name: (value.dtype, tuple(value.shape)) for name, value in weights.items()}


def _check_spend_of_counts(
    report: SiteReport, request: EvaluationRequest, ledgers: Ledgers
) -> None:
    if report.spend is not None:
        _check_spend(report.spend, ledgers.get(report.site))
    elif request.config.evaluation.count_noise > 0:
        raise FaultyAnswer(Fault.NO_SPEND, "spend is missing, and the counts are to be noised")


def _check_spend(spend: Spend, last: LedgerHead | None) -> None:
    common = spend.run_common_epsilon
    charged = (spend.run_epsilon, spend.cohort_epsilon, 0.0 if common is None else common)
    if not all(math.isfinite(epsilon) and epsilon >= 0 for epsilon in charged):
        raise FaultyAnswer(Fault.WRONG_SPEND, f"epsilon={charged}, expected finite and >= 0")
    deltas = (spend.run_delta, spend.cohort_delta)
    if not all(0 < delta < 1 for delta in deltas):
        raise FaultyAnswer(Fault.WRONG_SPEND, f"delta={deltas}, expected between 0 and 1")
    charges, known = spend.ledger.charges, last.charges if last is not None else 0
    if charges < 1:
        raise FaultyAnswer(Fault.WRONG_SPEND, f"ledger.charges={charges}, expected at least 1")
    if charges <= known:
        raise FaultyAnswer(
            Fault.OLD_LEDGER, f"ledger.charges={charges}, expected more than {known}"
        )


def admit_reports(
    answers: Iterator[SiteReport | Refusal | NotAdmitted],
    request: EvaluationRequest,
    asked: Sequence[str],
    ledgers: Ledgers = _NONE_KNOWN,
) -> tuple[list[SiteReport], list[NotAdmitted]]:
    """Return the reports that can be added up, in the order of `asked`, and all the others.

    What differs in kind from most reports is left out: one site cannot spoil the sum.
    """
    reports: list[SiteReport] = []
    left_out: list[NotAdmitted] = []
    seen: set[str] = set()
    for answer in answers:
        if isinstance(answer, NotAdmitted):
            left_out.append(answer)
            continue
        try:
            _check_place(answer, request, asked, seen)
            if isinstance(answer, SiteReport):
                _check_sites(answer, request)
                _check_statistics(answer, request.config.evaluation.count_noise)
                _check_spend_of_counts(answer, request, ledgers)
        except FaultyAnswer as error:
            left_out.append(_not_admitted(answer.site, error, used_up=answer.site not in seen))
        else:
            seen.add(answer.site)
            if isinstance(answer, SiteReport):
                reports.append(answer)
    reports.sort(key=lambda report: asked.index(report.site))
    kinds = Counter(_kind(report.statistics) for report in reports)
    usual = kinds.most_common(1)[0][0] if kinds else ""
    odd = [report for report in reports if _kind(report.statistics) != usual]
    left_out += [
        NotAdmitted(
            site=report.site,
            fault=Fault.WRONG_STATISTICS,
            detail=f"{_kind(report.statistics)}, expected {usual}",
            used_up=True,
        )
        for report in odd
    ]
    return [report for report in reports if _kind(report.statistics) == usual], left_out


def _kind(statistics: Statistics) -> str:
    arrays = {**statistics.cells, **{f"sum {n}": v for n, v in statistics.sums.items()}}
    return " ".join(f"{name}{list(arrays[name].shape)}" for name in sorted(arrays))


def _check_statistics(report: SiteReport, count_noise: float) -> None:
    statistics, expected = report.statistics, max(len(report.sites), 1) * count_noise**2
    if statistics.patients.shape != ():
        detail = f"patients has shape {statistics.patients.shape}, expected one number"
        raise FaultyAnswer(Fault.WRONG_STATISTICS, detail)
    if not math.isclose(statistics.noise, expected, rel_tol=1e-9):
        detail = f"noise has variance {statistics.noise:g}, expected {expected:g}"
        raise FaultyAnswer(Fault.WRONG_STATISTICS, detail)
    counts = {"patients": statistics.patients, **statistics.cells}
    for name, value in counts.items():
        # Noise makes counts negative at times, and takes the sums away.
        if not np.isfinite(value).all() or (count_noise == 0 and (value < 0).any()):
            raise FaultyAnswer(Fault.WRONG_STATISTICS, f"{name} is no count")
    if count_noise == 0 and not all(np.isfinite(v).all() for v in statistics.sums.values()):
        raise FaultyAnswer(Fault.WRONG_STATISTICS, "a sum is not finite")
