from __future__ import annotations

import json
import random
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config.run_config import RunConfig
from common.messages.wire import (
    EvaluationRequest,
    Refusal,
    RefusalReason,
    SiteReport,
    SiteUpdate,
    TrainRequest,
)
from common.platform.errors import ConfigurationError, RunFailed, SitesAway
from server.aggregation.rules import aggregator_of
from server.rounds.journal import Journal
from server.rounds.non_admission_reasons import Fault
from server.rounds.quorum import check_quorum
from server.rounds.round_record import RoundRecord
from server.rounds.run_rounds import RunRecords, begin, run_rounds, train_round
from server.rounds.run_state import RunState, RunStore
from tests.server.hospitals import NAMES, RATE, STEPS, FakeSites, config_of, same_bits, start


def run(
    config: RunConfig, sites: FakeSites | None = None, records: RunRecords | None = None
) -> RunState:
    aggregator, state = start(config)
    return run_rounds(config, sites or FakeSites(), aggregator, state, records or RunRecords())


class Choosy(FakeSites):
    """Hospitals of which only some can be asked in a round, and some answer badly."""

    def __init__(self, present: dict[int, Sequence[str]], bad: Sequence[str] = ()) -> None:
        super().__init__()
        self.present, self.bad, self.round = present, bad, 1

    def available(self) -> tuple[str, ...]:
        return tuple(self.present.get(self.round, NAMES))

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        for answer in super().train(request, sites):
            if answer.site in self.bad and isinstance(answer, SiteUpdate):
                nan = {n: torch.full_like(v, torch.nan) for n, v in answer.delta.items()}
                yield replace(answer, delta=nan)
            else:
                yield answer

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        yield from super().evaluate(request, sites)
        self.round = request.round + 1


# --- the whole run ---------------------------------------------------------------------------


def test_a_run_is_federated_averaging_as_twenty_lines_of_numpy_write_it() -> None:
    hospitals = list(FakeSites().hospitals.values())
    weight, bias = np.zeros(4), 0.0
    for _ in range(4):
        moved = []
        for hospital in hospitals:
            x, y = hospital.inputs.double().numpy(), hospital.target[:, 0].double().numpy()
            w, b = weight.copy(), bias
            for _ in range(STEPS):
                error = 1 / (1 + np.exp(-(x @ w + b))) - y
                w, b = w - RATE * (x.T @ error) / len(y), b - RATE * error.mean()
            moved.append((w, b))
        weight = np.mean([w for w, _ in moved], axis=0)
        bias = float(np.mean([b for _, b in moved]))
    state = run(config_of())
    np.testing.assert_allclose(state.weights["weight"].numpy()[0], weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(float(state.weights["bias"]), bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rule", ["mean", "scaffold", "median", "trimmed_mean", "krum", "multi_krum"]
)
def test_every_order_of_arrival_ends_in_the_same_bits(rule: str) -> None:
    config = config_of(f"aggregation: {{rule: {rule}}}", rounds=2)
    expected = run(config)
    for order in list(permutations(NAMES))[1::7]:
        sites = FakeSites()
        sites.order = list(order)
        found = run(config, sites)
        assert same_bits(found.weights, expected.weights)
        assert found.best_score == expected.best_score


def test_the_sum_of_floats_does_depend_on_the_order_so_the_test_above_says_something() -> None:
    config = config_of(rounds=1)
    aggregator, state = start(config)
    request = TrainRequest(run="r1", round=1, seed=0, config=config, weights=state.weights)
    answers = list(FakeSites().train(request, NAMES))
    sums = set()
    for order in permutations(answers):
        gathering = aggregator.begin(state.weights)
        for answer in order:
            assert isinstance(answer, SiteUpdate)
            aggregator.add(gathering, answer)
        sums.add(gathering.total["weight"].numpy().tobytes())
    assert len(sums) > 1


def test_the_global_generators_are_left_alone() -> None:
    before = (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state()))  # noqa: NPY002
    run(config_of("aggregation: {rule: scaffold}"))
    after = (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state()))  # noqa: NPY002
    assert before == after


@pytest.mark.parametrize("arrival", [NAMES, NAMES[::-1]])
def test_one_update_at_a_time_is_in_memory_when_they_are_averaged(arrival: tuple[str, ...]) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    seen: list[int] = []

    class Watched(FakeSites):
        def train(
            self, request: TrainRequest, sites: Sequence[str]
        ) -> Iterator[SiteUpdate | Refusal]:
            assert set(arrival) == set(sites)
            for name in arrival:
                seen.append(len(alive))
                yield self._made(name, request)

        def _made(self, name: str, request: TrainRequest) -> SiteUpdate:
            update = self.hospitals[name].train(request)
            alive.add(update.delta["weight"])
            return update

    config = config_of()
    aggregator, state = start(config)
    train_round(config, Watched(), aggregator, state)
    assert seen == [0, 0, 0, 0]


def test_begin_takes_the_networks_own_first_weights_from_the_seed() -> None:
    config = config_of()
    hidden = config.model.model_copy(update={"hidden": (4,)})  # the last layer begins at zero
    config = config.model_copy(update={"model": hidden})
    aggregator = aggregator_of(config.aggregation, 4)
    one, same, other = (begin(config, "r", seed, aggregator) for seed in (1, 1, 2))
    assert same_bits(one.weights, same.weights)
    assert not same_bits(one.weights, other.weights)
    assert (one.round, one.seed, one.fingerprint) == (0, 1, config.fingerprint())


# --- who takes part --------------------------------------------------------------------------


def test_sites_may_drop_out_and_rejoin() -> None:
    seen: list[RoundRecord] = []
    sites = Choosy({2: ("east", "west")})
    run(config_of(), sites, RunRecords(observe=seen.append))
    assert [r.updates for r in seen] == [NAMES, ("east", "west"), NAMES, NAMES]
    assert [r.round for r in seen] == [1, 2, 3, 4]
    assert all(r.seconds > 0 for r in seen)


def test_without_any_site_the_run_fails_and_what_was_saved_can_be_resumed(tmp_path: Path) -> None:
    config = config_of()
    store = RunStore(tmp_path)
    with pytest.raises(RunFailed, match="Round 3 cannot start: no site is available"):
        run(config, Choosy({3: ()}), RunRecords(store=store))
    saved = RunStore(tmp_path).load()
    assert saved is not None
    assert saved.round == 2
    aggregator, _ = start(config)
    found = run_rounds(config, FakeSites(), aggregator, saved, RunRecords(store=RunStore(tmp_path)))
    assert same_bits(found.weights, run(config).weights)


def test_a_faulty_site_is_left_out_told_of_and_the_run_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    state = run(config_of(), Choosy({}, bad=["north"]), RunRecords(journal=journal))
    without = Choosy(dict.fromkeys(range(1, 5), ("east", "south", "west")))
    assert same_bits(state.weights, run(config_of(), without).weights)
    first = json.loads(journal.path.read_text().splitlines()[1])
    assert first["left_out"] == {"north": "it holds values that are not finite"}
    assert first["faults"] == ["north: it holds values that are not finite (norm=nan)"]
    assert first["updates"] == ["east", "south", "west"]


def test_fewer_updates_than_the_quorum_fail_the_run_and_say_why() -> None:
    config = config_of("aggregation: {smallest_quorum: 3}")
    run(config, Choosy({}, bad=["north"]))
    with pytest.raises(RunFailed) as caught:
        run(config, Choosy({}, bad=["north", "south"]))
    text = str(caught.value)
    assert "got 2 usable updates, expected at least 3 (aggregation.smallest_quorum)" in text
    assert "north: it holds values that are not finite" in text
    assert "the loss of task.kind=diagnosis is not finite" in text
    assert "for patients of north, south, or training.learning_rate is too large" in text
    assert "Resuming would end here again" in text


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("it did not answer", SitesAway),
        (Fault.LATE.value, SitesAway),
        (RefusalReason.PAUSED.value, SitesAway),
        (RefusalReason.FAILED.value, RunFailed),
    ],
)
def test_a_round_that_others_can_save_is_asked_again_by_itself_or_to_be_resumed(
    why: str, kind: type[RunFailed]
) -> None:
    record = RoundRecord(
        round=2, updates=("east", "south"), left_out={"north": Fault.NOT_FINITE.value, "west": why}
    )
    with pytest.raises(RunFailed) as raised:
        check_quorum(config_of("aggregation: {smallest_quorum: 3}"), record)
    assert type(raised.value) is kind
    again = kind is SitesAway
    assert ("It is asked again" in str(raised.value)) is again
    assert ("Resume the run when enough sites can answer" in str(raised.value)) is not again


class Silent(FakeSites):
    """West never answers, east refuses, and nobody reports."""

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        yield from super().train(request, [s for s in sites if s not in {"west", "east"}])
        yield Refusal(
            run=request.run, round=request.round, site="east", reason=RefusalReason.BUDGET
        )

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        del request, sites
        yield from ()


def test_silence_and_refusal_are_told_apart_and_no_report_is_no_score() -> None:
    state = run(config_of(), Silent())
    record = state.history[0]
    assert record.updates == ("north", "south")
    assert record.left_out == {
        "west": "it did not answer",
        "east": "the privacy budget of this cohort does not allow it",
    }
    assert record.score is None
    assert state.best_round == 0
    assert state.chosen is state.weights


# --- choosing and stopping --------------------------------------------------------------------


def test_the_best_round_is_kept_and_patience_ends_the_run() -> None:
    overshooting = "aggregation: {server: {kind: fedavgm, learning_rate: 4, beta1: 0.95}}"
    config = config_of(f"selection: {{patience: 2}}\n{overshooting}", rounds=30)
    state = run(config)
    scores = [r.score for r in state.history if r.score is not None]
    assert state.finished
    assert state.round < 30
    assert state.best_score == min(scores) == scores[state.best_round - 1]
    assert state.round == state.best_round + 2
    assert same_bits(state.chosen, state.best)
    assert not same_bits(state.chosen, state.weights)


def test_without_a_choice_the_last_round_is_the_result() -> None:
    state = run(config_of("selection: {rule: last}"))
    assert state.best_round == 0
    assert state.chosen is state.weights
    assert all(record.score is None for record in state.history)


def test_the_average_over_rounds_is_what_is_validated_and_kept() -> None:
    state = run(config_of(training=", average: 0.9"))
    assert state.best_round == 4
    assert same_bits(state.best, state.average)
    assert not same_bits(state.average, state.weights)


# --- traces and resuming ----------------------------------------------------------------------


def test_another_configuration_does_not_resume_the_run() -> None:
    config, other = config_of(rounds=4), config_of(rounds=5)
    aggregator, state = start(config)
    with pytest.raises(ConfigurationError, match="begun with another configuration"):
        run_rounds(other, FakeSites(), aggregator, state, RunRecords())


def test_a_line_that_a_crash_kept_from_the_journal_is_written_on_resuming(tmp_path: Path) -> None:
    config = config_of()
    run(
        config, records=RunRecords(store=RunStore(tmp_path))
    )  # no journal: as if it was not reached
    aggregator, _ = start(config)
    saved = RunStore(tmp_path).load()
    assert saved is not None
    journal = Journal(tmp_path / "j.jsonl")
    run_rounds(config, FakeSites(), aggregator, saved, RunRecords(journal=journal))
    events = [json.loads(line)["event"] for line in journal.path.read_text().splitlines()]
    assert events == ["round", "round", "round", "round", "resumed"]
    assert journal.rounds() == {1, 2, 3, 4}


def test_a_run_that_is_finished_trains_no_further(tmp_path: Path) -> None:
    config = config_of()
    state = run(config, records=RunRecords(store=RunStore(tmp_path)))
    aggregator, _ = start(config)
    saved = RunStore(tmp_path).load()
    assert saved is not None
    assert run_rounds(config, Choosy({5: ()}), aggregator, saved, RunRecords()) is saved
    assert saved.round == state.round == 4
