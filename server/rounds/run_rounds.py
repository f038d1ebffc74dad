"""The rounds of a run, the same function between hospitals and in a simulation.

Whether enough sites are there is decided in server/rounds/quorum.py, and in
server/rounds/approval.py where sites refuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from common.bundle.backbone_check import check_backbone
from common.config.measured_rounds import is_validated
from common.config.run_config import RunConfig
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.metrics.statistics import merge
from common.models.extension_network import check_extensions
from common.models.run_network import initial_weights
from common.platform.errors import ConfigurationError, RunFailed
from common.platform.hash_chain import Fact
from common.privacy.plan import LedgerHead
from common.tasks import task_of
from common.tasks.summary import summarised
from server.aggregation.rules import Aggregator, averaged, control_of
from server.rounds.checkpoint_choice import check_selection, is_better, score
from server.rounds.early_stopping import should_stop
from server.rounds.journal import Journal
from server.rounds.quorum import SILENT, check_quorum
from server.rounds.round_record import RoundRecord, last_ledgers
from server.rounds.run_state import RunState, RunStore
from server.rounds.update_admission import NotAdmitted, admit, admit_reports
from server.rounds.update_norm_bound import bounded

__all__ = ["RoundRecord", "RunRecords", "Sites", "ask_reports", "begin", "run_rounds"]


class Sites(Protocol):
    """The hospitals, however they are reached."""

    def available(self) -> tuple[str, ...]:
        """Return the names of the sites that can be asked now."""
        ...

    def train(
        self, request: TrainRequest, sites: Sequence[str]
    ) -> Iterator[SiteUpdate | Refusal | NotAdmitted]:
        """Yield the sites' answers one at a time, in the order of `sites` where that can be had.

        Any order ends in the same weights; an answer that comes early waits on disk. Keep
        no reference to an answer that was yielded, so that one is in memory at a time.
        """
        ...

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal | NotAdmitted]:
        """Yield the sites' reports one at a time."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """Where a run leaves its traces."""

    store: RunStore | None = None  # None: nothing is saved, a crash starts over
    journal: Journal | None = None
    observe: Callable[[RoundRecord], None] = lambda _record: None  # hears of rounds done now


def begin(config: RunConfig, run: str, seed: int, aggregator: Aggregator) -> RunState:
    """Return the state before the first round."""
    check_extensions(config)
    check_backbone(config)
    weights = initial_weights(config, seed)
    return RunState(
        run=run,
        round=0,
        seed=seed,
        fingerprint=config.fingerprint(),
        weights=weights,
        server=aggregator.init(weights),
        average={},
        best={},
    )


def run_rounds(
    config: RunConfig, sites: Sites, aggregator: Aggregator, state: RunState, records: RunRecords
) -> RunState:
    """Train round after round until the last, or until patience ends.

    A round is saved when it is trained, and again when it is validated, so a run that was
    killed anywhere goes on from there (`RunStore.load`) and ends in the same bits where
    sites repeat theirs. Without privacy they do; with privacy a round that was lost before
    it was saved is trained with new noise, and charged again.

    RunFailed when no site can be asked or too few updates are admitted; what was saved
    stays, and the run can be resumed.
    """
    _check_fits(config, state)
    _open_journal(records.journal, state)
    while not state.finished:
        started, training = time.perf_counter(), 0.0
        if state.settled:
            state = train_round(config, sites, aggregator, state)
            training = time.perf_counter() - started
            _save(records.store, state)
        state = settle_round(config, sites, state)
        _save(records.store, state)
        record = state.history[-1]
        _write_round(records.journal, record)
        seconds = time.perf_counter() - started
        records.observe(replace(record, seconds=seconds, training_seconds=training))
    return state


def train_round(
    config: RunConfig, sites: Sites, aggregator: Aggregator, state: RunState
) -> RunState:
    """Ask, admit, combine, step: from one state to the next, not yet validated."""
    number = state.round + 1
    # By name: the order of addition, and so the bits of the sum, is the same in every run.
    asked = tuple(sorted(set(sites.available())))
    if not asked:
        message = f"Round {number} cannot start: no site is available. Resume the run when one is."
        raise RunFailed(message)
    _check_regions(config, asked)
    request = TrainRequest(
        run=state.run,
        round=number,
        seed=state.seed,
        config=config,
        weights=state.weights,
        control=control_of(state.server) or None,
    )
    gathering = aggregator.begin(state.weights)
    tally = _Tally(number, asked)
    admitted = admit(sites.train(request, asked), request, asked, last_ledgers(state.history))
    longest = max((record.usual_norm or 0.0 for record in state.history), default=0.0)
    for answer in bounded(admitted, request, asked, longest, tally):
        if isinstance(answer, SiteUpdate):
            aggregator.add(gathering, answer)
        tally.count(answer)
        del answer  # before the next is made: two models in memory, the sum and this one
    record = tally.record()
    check_quorum(config, record)
    weights, server = aggregator.finish(gathering, state.weights, state.server, number)
    keep = config.training.average
    return replace(
        state,
        round=number,
        weights=weights,
        server=server,
        settled=False,
        average=averaged(state.average, weights, keep, number) if keep > 0 else {},
        history=(*state.history, record),
    )


def _check_regions(config: RunConfig, asked: Sequence[str]) -> None:
    """Raise RunFailed where a hospital is asked that answers through its region."""
    inside = {
        site: region for region, sites in config.aggregation.regions.items() for site in sites
    }
    found = [f"{site} (of {inside[site]})" for site in asked if site in inside]
    if found:
        message = (
            f"aggregation.regions says that regional coordinators ask {', '.join(found)}, and this "
            "one has been about to. Leave regions out: only server/regions asks through them so "
            "far (docs/two-levels.md)."
        )
        raise RunFailed(message)


def settle_round(config: RunConfig, sites: Sites, state: RunState) -> RunState:
    """Validate a trained round where it is due, keep the best, and say whether the run ends."""
    if is_validated(config, state.round):
        state = _validate(config, sites, state)
    last = state.round >= config.training.rounds
    stop = should_stop(config, state.round, state.best_round)
    return replace(state, settled=True, finished=last or stop)


def _validate(config: RunConfig, sites: Sites, state: RunState) -> RunState:
    """Measure the current weights on validation patients and keep them if they are the best."""
    asked = tuple(sorted(set(sites.available())))
    reports, left_out = ask_reports(config, sites, state, asked, "validation")
    record = state.history[-1]
    told = {report.site: report.spend.ledger for report in reports if report.spend is not None}
    record = replace(
        record,
        faults=(*record.faults, *map(_fault_text, left_out)),
        ledgers={**record.ledgers, **told},
    )
    if reports:
        merged = merge(report.statistics for report in reports)
        task = task_of(config.task)
        now = score(config, task, merged)
        record = replace(record, score=now, metrics=summarised(config, merged))
        if is_better(now, state.best_score):
            state = replace(state, best=state.current, best_round=state.round, best_score=now)
    return replace(state, history=(*state.history[:-1], record))


def ask_reports(
    config: RunConfig,
    sites: Sites,
    state: RunState,
    asked: Sequence[str],
    split: Literal["validation", "test"],
) -> tuple[list[SiteReport], list[NotAdmitted]]:
    """Ask sites to measure: current weights on validation, chosen ones on test patients."""
    request = EvaluationRequest(
        run=state.run,
        round=state.round,
        seed=state.seed,
        config=config,
        weights=state.chosen if split == "test" else state.current,
        split=split,
    )
    answers = sites.evaluate(request, asked)
    return admit_reports(answers, request, asked, last_ledgers(state.history))


class _Tally:
    """Who answered what in one round."""

    def __init__(self, number: int, asked: Sequence[str]) -> None:
        self._number = number
        self._left_out = dict.fromkeys(asked, SILENT)
        self._updates: list[str] = []
        self._faults: list[str] = []
        self._epsilon: dict[str, float] = {}
        self._delta: dict[str, float] = {}
        self._common: dict[str, float] = {}
        self._ledgers: dict[str, LedgerHead] = {}
        self._shortened: dict[str, str] = {}
        self._usual: float | None = None

    def count(self, answer: SiteUpdate | Refusal | NotAdmitted) -> None:
        """Count one answer."""
        match answer:
            case SiteUpdate():
                self._updates.append(answer.site)
                self._left_out.pop(answer.site)
                if answer.spend is not None:
                    self._epsilon[answer.site] = answer.spend.run_epsilon
                    self._delta[answer.site] = answer.spend.run_delta
                    if answer.spend.run_common_epsilon is not None:
                        self._common[answer.site] = answer.spend.run_common_epsilon
                    self._ledgers[answer.site] = answer.spend.ledger
            case Refusal():
                self._left_out[answer.site] = answer.told
            case NotAdmitted():
                self._faults.append(_fault_text(answer))
                if answer.used_up:
                    self._left_out[answer.site] = answer.fault.value

    def shortened(self, site: str, how: str) -> None:
        """Note that a site's update counts for less than it came."""
        self._shortened[site] = "; ".join(x for x in (self._shortened.get(site), how) if x)

    def usual(self, length: float) -> None:
        """Note the median norm of the updates."""
        self._usual = length

    def record(self) -> RoundRecord:
        """Return what is told of the round."""
        return RoundRecord(
            round=self._number,
            updates=tuple(self._updates),
            left_out=self._left_out,
            faults=tuple(sorted(self._faults)),
            epsilon=self._epsilon,
            delta=self._delta,
            common_epsilon=self._common,
            ledgers=self._ledgers,
            shortened=self._shortened,
            usual_norm=self._usual,
        )


def _fault_text(left_out: NotAdmitted) -> str:
    return f"{left_out.site}: {left_out.fault.value} ({left_out.detail})"


def _check_fits(config: RunConfig, state: RunState) -> None:
    check_selection(config)
    if state.fingerprint != config.fingerprint():
        message = (
            f"Run {state.run} was begun with another configuration (SHA-256 {state.fingerprint}, "
            f"now {config.fingerprint()}). Resume with the configuration in its folder, or start "
            "a new run."
        )
        raise ConfigurationError(message)


def _save(store: RunStore | None, state: RunState) -> None:
    if store is not None:
        store.save(state)


def _open_journal(journal: Journal | None, state: RunState) -> None:
    """Say that the run begins or goes on, and add lines that a crash kept from being written."""
    if journal is None:
        return
    written = journal.rounds()
    for record in state.history if state.settled else state.history[:-1]:
        if record.round not in written:
            _write_round(journal, record)
    facts: dict[str, Fact] = {
        "run": state.run,
        "configuration": state.fingerprint,
        "seed": state.seed,
        "after_round": state.round,
    }
    journal.write("resumed" if state.round else "begun", facts)


def _write_round(journal: Journal | None, record: RoundRecord) -> None:
    if journal is not None:
        journal.write("round", record.to_json())
