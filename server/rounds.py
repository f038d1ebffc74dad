"""The whole story of a run. Between hospitals and in a simulation it is this one function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from common.config import RunConfig
from common.errors import RunFailed
from common.metrics import Estimate, Statistics, merge
from common.network import initial_weights
from common.tasks import task_of
from common.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from server.admission import NotAdmitted, admit
from server.aggregation import Aggregator, averaged, control_of
from server.journal import Fact, Journal
from server.run_state import RunState, RunStore
from server.selection import is_better, score, should_stop


class Sites(Protocol):
    """The hospitals, however they are reached."""

    def available(self) -> tuple[str, ...]:
        """Return the names of the sites that can be asked now."""
        ...

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        """Yield the sites' answers one at a time.

        Answers come in the order of `sites` wherever that can be had: floating-point
        addition is not associative, and equal runs should end in equal bits.
        """
        ...

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        """Yield the sites' reports one at a time."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """What is told of a round to whoever watches."""

    round: int
    updates: tuple[str, ...]  # sites whose updates were admitted
    left_out: Mapping[str, str]  # other sites, and why
    score: float | None  # validation score, lower is better; None: not measured
    metrics: Mapping[str, Estimate]  # merged validation metrics
    epsilon: Mapping[str, float]  # by site, of this run so far; empty without privacy
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Records:
    """Where a run leaves its traces."""

    store: RunStore | None = None  # None: nothing is saved, a crash starts over
    journal: Journal | None = None
    observe: Callable[[RoundRecord], None] = lambda _record: None


def begin(config: RunConfig, run: str, seed: int, aggregator: Aggregator) -> RunState:
    """Return the state before the first round."""
    weights = initial_weights(config, seed)
    return RunState(
        run=run, round=0, seed=seed, weights=weights, server=aggregator.init(weights),
        average={}, best={},
    )  # fmt: skip


def run_rounds(
    config: RunConfig, sites: Sites, aggregator: Aggregator, state: RunState, records: Records
) -> RunState:
    """Train round after round until the last, or until patience ends.

    Each state is saved before the next round starts, so a run that was killed anywhere
    goes on from the last saved round and ends in the same weights, bit for bit without
    privacy. RunFailed when no site can be asked or none of their updates is admitted.
    """
    while not state.finished:
        asked = sites.available()
        if not asked:
            message = f"Round {state.round + 1} cannot start: no site is available."
            raise RunFailed(message)
        state, record = one_round(config, sites, aggregator, state, asked)
        if is_due(config, state):
            state, record = validate(config, sites, state, asked, record)
        last = state.round == config.training.rounds
        stop = should_stop(config, state.round, state.best_round)
        state = replace(state, finished=last or stop)
        if records.store is not None:
            records.store.save(state)
        if records.journal is not None:
            records.journal.write("round", journal_facts(state, record))
        records.observe(record)
    return state


def one_round(
    config: RunConfig,
    sites: Sites,
    aggregator: Aggregator,
    state: RunState,
    asked: Sequence[str],
) -> tuple[RunState, RoundRecord]:
    """Ask, admit, combine, step: from one state to the next."""
    request = TrainRequest(
        run=state.run, round=state.round + 1, seed=state.seed, config=config,
        weights=state.weights, control=control_of(state.server) or None,
    )  # fmt: skip
    gathering = aggregator.begin(state.weights)
    updates: list[str] = []
    left_out: dict[str, str] = {}
    epsilon: dict[str, float] = {}
    for answer in admit(sites.train(request, asked), request, asked):
        match answer:
            case SiteUpdate():
                aggregator.add(gathering, answer)
                updates.append(answer.site)
                if answer.spend is not None:
                    epsilon[answer.site] = answer.spend.run_epsilon
            case Refusal():
                left_out[answer.site] = answer.reason.value
            case NotAdmitted():
                left_out[answer.site] = answer.fault.value
    if not updates:
        reasons = "; ".join(f"{site}: {why}" for site, why in left_out.items())
        message = f"Round {request.round} got no usable update ({reasons or 'nobody answered'})."
        raise RunFailed(message)
    weights, server = aggregator.finish(gathering, state.weights, state.server, request.round)
    after = replace(state, round=request.round, weights=weights, server=server)
    keep = config.training.average
    if keep > 0:
        after = replace(after, average=averaged(state.average or state.weights, weights, keep))
    return after, RoundRecord(
        round=request.round, updates=tuple(updates), left_out=left_out, score=None, metrics={},
        epsilon=epsilon,
    )  # fmt: skip


def is_due(config: RunConfig, state: RunState) -> bool:
    """Return whether this round is validated."""
    if config.selection.rule == "last":
        return False
    return state.round % config.selection.every == 0 or state.round == config.training.rounds


def validate(
    config: RunConfig,
    sites: Sites,
    state: RunState,
    asked: Sequence[str],
    record: RoundRecord,
) -> tuple[RunState, RoundRecord]:
    """Measure the current weights on validation patients and keep them if they are the best."""
    request = EvaluationRequest(
        run=state.run, round=state.round, seed=state.seed, config=config,
        weights=state.current, split="validation",
    )  # fmt: skip
    merged = merged_statistics(sites, request, asked)
    if merged is None:
        return state, record
    task = task_of(config.task)
    now = score(config, task, merged)
    measured = replace(record, score=now, metrics=task.summarise(merged, config.evaluation))
    if is_better(now, state.best_score):
        state = replace(state, best=state.current, best_round=state.round, best_score=now)
    return state, measured


def merged_statistics(
    sites: Sites, request: EvaluationRequest, asked: Sequence[str]
) -> Statistics | None:
    """Return the sum of all sites' reports, or None when there was none."""
    reports = [r for r in sites.evaluate(request, asked) if isinstance(r, SiteReport)]
    return merge(report.statistics for report in reports) if reports else None


def journal_facts(state: RunState, record: RoundRecord) -> dict[str, Fact]:
    """Return what the journal says of a round: names, counts and hashes, no patient."""
    known = record.score is not None and math.isfinite(record.score)
    return {
        "run": state.run, "round": record.round, "updates": list(record.updates),
        "left_out": dict(record.left_out), "score": record.score if known else None,
        "best_round": state.best_round, "epsilon": dict(record.epsilon),
        "finished": state.finished,
    }  # fmt: skip
