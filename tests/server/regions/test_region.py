from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.privacy.ledger import Ledger, Limit
from client.training.kept_between_rounds import MemoryInProcess
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, parse_config
from common.messages.message_header import message_of, parts_of
from common.messages.refusals import RefusalReason
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest
from common.platform.errors import ConfigurationError, RunFailed
from common.privacy.noise import ChaChaNoise
from common.privacy.plan import Spend
from server.aggregation.rules import aggregator_of
from server.regions.region import RegionalSite, RegionalSites, spend_of_all
from server.rounds.non_admission_reasons import Fault
from server.rounds.run_rounds import RunRecords, Sites, begin, run_rounds
from server.rounds.run_state import RunState
from simulations.engines.in_process import InProcessSites
from tests.client.local_runs import config_of as trained_config
from tests.client.local_runs import learnable
from tests.privacy.made_up import patients_of
from tests.server.coordinator import made, running
from tests.server.hospitals import FakeSites, config_of, start
from tests.server.hospitals import Hospital as Numbers
from tests.server.loopback import Hospital, run_over

REGIONS = "regions: {upper: [east, north], lower: [south, west]}"
WEIGHTS = "weights: {east: 3, north: 1, south: 2.5, west: 0.5}"
ONE = f"aggregation: {{{WEIGHTS}}}"
TWO = f"aggregation: {{{REGIONS}, {WEIGHTS}}}"


def regions(sites: Sites) -> RegionalSites:
    return RegionalSites([RegionalSite("upper", sites), RegionalSite("lower", sites)])


def run(config: RunConfig, sites: Sites) -> RunState:
    aggregator, state = start(config)
    return run_rounds(config, sites, aggregator, state, RunRecords())


def alike(one: RunState, other: RunState) -> None:
    """Check that two runs differ by rounding alone."""
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, other.weights[name], rtol=1e-5, atol=1e-6)


def scores(state: RunState) -> list[float | None]:
    return [record.score for record in state.history]


class Absent(FakeSites):
    """Hospitals of which one is away in one round."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self._name, self._number = name, number

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        for answer in super().train(request, sites):
            if request.round == self._number and answer.site == self._name:
                reason = RefusalReason.PAUSED
                yield Refusal(run="r1", round=request.round, site=self._name, reason=reason)
            else:
                yield answer


def test_two_levels_end_where_one_coordinator_would_whatever_the_hospitals_weigh() -> None:
    two, one = run(config_of(TWO), regions(FakeSites())), run(config_of(ONE), FakeSites())
    alike(two, one)
    assert scores(two) == pytest.approx(scores(one), rel=1e-5)


class Five(Absent):
    """A fifth hospital, with west's patients."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(name, number)
        self.order.append("fifth")
        self.hospitals["fifth"] = Numbers("fifth", 3, MemoryInProcess())


def test_a_region_weighs_as_those_of_it_that_answered() -> None:
    three = "regions: {upper: [east, north, south], lower: [fifth, west]}"
    config = config_of(f"aggregation: {{{three}, {WEIGHTS}}}")
    one = config_of(f"aggregation: {{{WEIGHTS}}}")
    alike(run(config, regions(Five("south", 2))), run(one, Five("south", 2)))


def test_a_region_of_which_one_hospital_answers_tells_nothing_of_it_and_the_run_goes_on() -> None:
    config = config_of(TWO)
    state = run(config, regions(Absent("west", 2)))
    assert [sorted(record.updates) for record in state.history] == [
        ["lower", "upper"],
        ["upper"],
        ["lower", "upper"],
        ["lower", "upper"],
    ]
    assert state.history[1].left_out == {"lower": RefusalReason.TOO_FEW_SITES.value}


@pytest.mark.parametrize(
    ("site", "sites"),
    [
        ("upper", ()),
        ("upper", ("east",)),
        ("upper", ("east", "east")),
        ("upper", ("east", "west")),
        ("upper", ("east", "north", "south", "west")),
        ("alone", ("east", "north")),
    ],
)
def test_an_answer_weighs_as_no_hospitals_but_those_of_its_region(
    site: str, sites: tuple[str, ...]
) -> None:
    class Lying(FakeSites):
        def available(self) -> tuple[str, ...]:
            return (site, "lower")

        def train(
            self, request: TrainRequest, _asked: Sequence[str]
        ) -> Iterator[SiteUpdate | Refusal]:
            yield replace(self.hospitals["north"].train(request), site=site, sites=sites)
            yield RegionalSite("lower", FakeSites()).train(request)

        def evaluate(
            self, request: EvaluationRequest, _asked: Sequence[str]
        ) -> Iterator[SiteReport | Refusal]:
            yield replace(self.hospitals["north"].evaluate(request), site=site, sites=sites)
            yield RegionalSite("lower", FakeSites()).evaluate(request)

    state = run(config_of(TWO, rounds=1), Lying())
    (record,) = state.history
    assert record.updates == ("lower",)
    assert record.left_out == {site: Fault.WRONG_SITES.value}
    assert len([fault for fault in record.faults if Fault.WRONG_SITES.value in fault]) == 2


@pytest.mark.parametrize(
    "regions",
    [
        "regions: {upper: [east], lower: [south, west]}",
        "regions: {upper: [east, north], lower: [east, west]}",
        "regions: {upper: [east, north], lower: [upper, west]}",
        "regions: {upper: [east, east]}",
        "rule: median, regions: {upper: [east, north]}",
    ],
)
def test_regions_that_cannot_be_added_up_are_refused(regions: str) -> None:
    with pytest.raises(ConfigurationError, match="regions"):
        config_of(f"aggregation: {{{regions}}}")


def test_a_hospital_is_not_asked_past_its_region() -> None:
    with pytest.raises(RunFailed, match=r"regional coordinators ask east \(of upper\)"):
        run(config_of(TWO), FakeSites())


def test_a_run_without_regions_keeps_the_hash_that_hospitals_approved() -> None:
    assert "regions" not in config_of().canonical_json()


# --- privacy -------------------------------------------------------------------------------

PRIVATE = parse_config("""
name: charged
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}, {column: crp}]}}
model: {network: table}
training: {rounds: 3, optimizer: sgd, learning_rate: 0.1}
selection: {rule: best, by: metric}
evaluation: {count_noise: 4.0}
aggregation: {regions: {upper: [east, north], lower: [south, west]}}
privacy: {unit: patient, epsilon: 2.0, public_patients: {east: 20, north: 40, south: 30, west: 25},
  delta: 0.001}
""")


def guarded(folder: Path) -> dict[str, Site]:
    patients = patients_of((1,) * 20, image=(0,))
    names = ("east", "north", "south", "west")
    guards = {
        name: Guard(
            ledger=Ledger(folder / f"{name}.db"),
            limit=Limit(epsilon=500.0, delta=1e-4),
            cohort="patients",
            noise=ChaChaNoise(),
        )
        for name in names
    }
    return {
        n: Site(name=n, train=patients, validation=patients, test=patients, guard=guards[n])
        for n in names
    }


def begun() -> RunState:
    return begin(PRIVATE, "run", 0, aggregator_of(PRIVATE.aggregation, 2))


class Heard(InProcessSites):
    """Hospitals whose words are kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(guarded(folder), PRIVATE, 0)
        self.said: dict[str, Spend] = {}

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        for answer in super().train(request, sites):
            if isinstance(answer, SiteUpdate) and answer.spend is not None:
                self.said[answer.site] = answer.spend
            yield answer


def test_what_a_region_states_holds_for_the_patients_of_each_of_its_hospitals(
    tmp_path: Path,
) -> None:
    within = Heard(tmp_path)
    aggregator = aggregator_of(PRIVATE.aggregation, 2)
    state = run_rounds(PRIVATE, regions(within), aggregator, begun(), RunRecords())
    assert [sorted(record.updates) for record in state.history] == [["lower", "upper"]] * 3
    last = state.history[-1]
    for region, names in PRIVATE.aggregation.regions.items():
        own = [within.said[name] for name in names]
        assert last.epsilon[region] == max(spend.run_epsilon for spend in own)
        assert last.delta[region] == max(spend.run_delta for spend in own)
        charged = [spend.ledger.charges for spend in own]
        assert last.ledgers[region].charges >= sum(charged) > 0


def test_a_region_states_the_largest_of_each_figure(tmp_path: Path) -> None:
    within = Heard(tmp_path)
    RegionalSite("upper", within).train(asked(1))
    one, two = within.said["east"], within.said["north"]
    told = spend_of_all(
        [
            replace(one, run_epsilon=2.0, run_delta=1e-5, cohort_epsilon=5.0, cohort_delta=1e-6),
            replace(two, run_epsilon=1.0, run_delta=1e-3, cohort_epsilon=7.0, cohort_delta=1e-7),
        ]
    )
    stated = (told.run_epsilon, told.run_delta, told.cohort_epsilon, told.cohort_delta)
    assert stated == (2.0, 1e-3, 7.0, 1e-6)
    assert spend_of_all([one, replace(two, run_common_epsilon=None)]).run_common_epsilon is None
    assert spend_of_all([one, replace(two, simulated_noise=True)]).simulated_noise


def asked(number: int) -> TrainRequest:
    weights = begun().weights
    return TrainRequest(run="run", round=number, seed=0, config=PRIVATE, weights=weights)


def test_a_region_leaves_a_hospital_out_that_has_put_an_old_ledger_back(tmp_path: Path) -> None:
    three = {"upper": ("east", "north", "south"), "lower": ("west", "fifth")}
    regional = PRIVATE.aggregation.model_copy(update={"regions": three})
    config = PRIVATE.model_copy(update={"aggregation": regional})
    first, second = (replace(asked(number), config=config) for number in (1, 2))
    upper = RegionalSite("upper", InProcessSites(guarded(tmp_path), config, 0))
    assert isinstance(upper.train(first), SiteUpdate)
    for file in tmp_path.glob("south.db*"):
        file.unlink()
    upper.sites = InProcessSites(guarded(tmp_path), config, 0)
    answer = upper.train(second)
    assert isinstance(answer, SiteUpdate)
    assert answer.sites == ("east", "north")


# --- between processes' seams --------------------------------------------------------------


def test_an_answer_of_a_region_travels_as_any_other() -> None:
    config = config_of(TWO)
    _, state = start(config)
    request = TrainRequest(
        run="r1", round=1, seed=0, config=config, weights=state.weights, control=None
    )
    update = RegionalSite("upper", FakeSites()).train(request)
    assert isinstance(update, SiteUpdate)
    header, tensors = parts_of(update)
    found = message_of(header, tensors)
    assert isinstance(found, SiteUpdate)
    assert found.sites == ("east", "north")


@pytest.mark.slow
def test_two_regional_coordinators_over_flower_end_where_one_coordinator_would(
    tmp_path: Path,
) -> None:
    """Each region is a real coordinator with its own hospitals; the national one asks both."""
    names = {"upper": ("east", "north"), "lower": ("south", "west")}
    patients = {
        name: learnable(patients_of((1, 2, 3, 1) * 4, (0,), seed))
        for seed, name in enumerate(sorted({n for part in names.values() for n in part}))
    }
    config = trained_config(f"aggregation: {{{REGIONS}}}")
    with ExitStack() as stack:
        found = []
        for region, sites in names.items():
            folder, settings = made(tmp_path / region)
            coordinator = stack.enter_context(running(folder, settings))
            for name in sites:
                site = coordinator.enrolled(name)
                hospital = Hospital(coordinator, site, tmp_path / name, patients[name])
                stack.callback(hospital.stop)
                hospital.start()
            within, _ = stack.enter_context(
                run_over(coordinator, config, tmp_path / f"{region}-run")
            )
            found.append(RegionalSite(region, within))
        aggregator = aggregator_of(config.aggregation, 2)
        state = begin(config, "run", 0, aggregator)
        torch.set_num_threads(1)
        two = run_rounds(config, RegionalSites(found), aggregator, state, RunRecords())
    here = {n: Site(name=n, train=p, validation=p, test=p) for n, p in patients.items()}
    flat = trained_config()
    state = begin(flat, "run", 0, aggregator)
    one = run_rounds(flat, InProcessSites(here, flat, 0), aggregator, state, RunRecords())
    alike(two, one)
    assert [sorted(record.updates) for record in two.history] == [["lower", "upper"]] * two.round
