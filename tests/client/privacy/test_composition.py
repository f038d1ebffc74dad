"""A patient is in one part of a run, so a run claims the largest of its parts."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.charge_text import BoundTo, Charge
from client.privacy.composition import Part, binding, charged_as, part_of, run_epsilon
from client.privacy.ledger import Ledger, Limit
from common.config.measured_rounds import evaluations
from common.config.run_config import parse_config
from common.metrics.statistics import count_sensitivity
from common.platform.errors import BudgetExceeded, RunBegun
from common.privacy.accounting import epsilon_of
from common.privacy.plan import Mechanism, Spend, count_mechanism
from tests.common.every_task import CONFIGS, made, rules, scored
from tests.privacy.made_up import charged, mechanism_of

DELTA = 1e-5
PARTS: tuple[Part, ...] = ("train", "validation", "test", "statistics")


BOUND = tuple(BoundTo(configuration=c, seed=0, split="") for c in ("one", "two"))


def charge(run: str, part: Part, mechanism: Mechanism, bound: BoundTo | None = BOUND[0]) -> Charge:
    return Charge(
        cohort="p", run=charged_as(run, part), round=1, attempt=1, mechanism=mechanism, bound=bound
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_ledgers_name_gives_run_and_part_back(part: Part) -> None:
    assert part_of(charged_as("run-1.test", part)) == ("run-1.test", part)


charges = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(PARTS),
        st.floats(2.0, 50.0),
        st.sampled_from([1.0, 1.0, 0.3]),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25)
@given(charges, st.data())
def test_no_patient_is_charged_less_than_what_was_told_of_them(
    listed: list[tuple[str, Part, float, float]], data: st.DataObject
) -> None:
    """Whatever part a patient is in, run by run, they are within what binds."""
    made_of = [charge(r, p, mechanism_of(s, sampling_rate=q, steps=1)) for r, p, s, q in listed]
    own = {run: data.draw(st.sampled_from(PARTS[:3])) for run in "abc"}
    of_patient = [
        c.mechanism
        for c, (run, part, *_) in zip(made_of, listed, strict=True)
        if part in {own[run], "statistics"}
    ]
    bound = epsilon_of(binding(made_of), DELTA)
    assert epsilon_of(of_patient, DELTA) <= bound * (1 + 1e-9) + 1e-9
    everything = epsilon_of([c.mechanism for c in made_of], DELTA)
    assert bound <= everything * (1 + 1e-9) + 1e-9
    for run in "abc":
        mine = [
            c.mechanism for c in made_of if part_of(c.run) in {(run, own[run]), (run, "statistics")}
        ]
        assert epsilon_of(mine, DELTA) <= run_epsilon(made_of, run, DELTA) + 1e-9


bound_charges = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(PARTS),
        st.floats(2.0, 50.0),
        st.sampled_from([1.0, 1.0, 0.3]),
        st.sampled_from([None, *BOUND]),
    ),
    min_size=1,
    max_size=8,
)


def check_one_name(
    listed: list[tuple[str, Part, float, float, BoundTo | None]],
    own: dict[tuple[str, BoundTo], Part],
) -> None:
    """Raise unless a patient who is in other parts of each configuration is within what binds."""
    made_of = [
        charge(run, part, mechanism_of(sigma, sampling_rate=rate, steps=1), bound)
        for run, part, sigma, rate, bound in listed
    ]
    of_patient = [
        one
        for one, (run, part, _, _, bound) in zip(made_of, listed, strict=True)
        if bound is None or part in {own[run, bound], "statistics"}
    ]
    spent = epsilon_of([c.mechanism for c in of_patient], DELTA)
    bound_by = epsilon_of(binding(made_of), DELTA)
    assert spent <= bound_by * (1 + 1e-9) + 1e-9, "a patient spent more than was counted"
    for name in "ab":
        mine = [c.mechanism for c in of_patient if part_of(c.run)[0] == name]
        assert epsilon_of(mine, DELTA) <= run_epsilon(made_of, name, DELTA) + 1e-9


@settings(max_examples=25)
@given(bound_charges, st.data())
def test_one_name_for_two_configurations_is_two_runs_that_add_up(
    listed: list[tuple[str, Part, float, float, BoundTo | None]], data: st.DataObject
) -> None:
    own = {(r, b): data.draw(st.sampled_from(PARTS[:3])) for r in "ab" for b in BOUND}
    check_one_name(listed, own)


def test_evaluation_costs_a_run_nothing_that_training_costs_more_for(tmp_path: Path) -> None:
    ledger, limit = Ledger(tmp_path / "ledger.db"), Limit(epsilon=8.0, delta=DELTA, run=3.0)
    train, test = mechanism_of(1.4, steps=1), count_mechanism(1.0, 1.5)
    bound = BOUND[0]
    spent = charged(ledger, "p", "run", 1, train, limit, DELTA, bound=bound)
    told = charged(ledger, "p", "run/test", 1, test, limit, DELTA, bound=bound)
    assert told.cohort_epsilon == spent.cohort_epsilon == pytest.approx(epsilon_of([train], DELTA))
    other = charged(ledger, "p", "other/test", 1, test, limit, DELTA, bound=bound)
    assert other.cohort_epsilon == pytest.approx(epsilon_of([train, test], DELTA))
    assert other.run_epsilon == pytest.approx(epsilon_of([test], DELTA))
    with pytest.raises(BudgetExceeded, match="too little noise"):
        charged(ledger, "p", "third/test", 1, count_mechanism(1.0, 1.0), limit, DELTA)
    everybody = charged(
        ledger, "p", "run/statistics", 0, count_mechanism(1.0, 20.0), limit, DELTA, bound=bound
    )
    assert everybody.cohort_epsilon > other.cohort_epsilon


#: Releases of one run whose limit is epsilon 3: part, round, noise. 1.5 alone claims 2.75.
RELEASES: dict[str, tuple[tuple[Part, int, float], ...]] = {
    "a part and everybody": (("statistics", 0, 1.5), ("validation", 1, 1.5)),
    "three parts": (("train", 1, 1.5), ("validation", 1, 1.5), ("test", 1, 1.5)),
    "within it": (("train", 1, 1.5), ("test", 1, 1.6), ("statistics", 0, 6.0)),
    "training and everybody": (("train", 1, 1.5), ("statistics", 0, 1.5)),
    "all": (("train", 1, 2.0), ("train", 2, 9.0), ("validation", 1, 3.0), ("statistics", 0, 1.8)),
    "a round again": (("train", 1, 1.5), ("train", 1, 1.5), ("statistics", 0, 9.0)),
    "counts again": (("test", 1, 2.0), ("test", 1, 2.0), ("statistics", 0, 3.0)),
}
WITHIN = {"three parts", "within it", "a round again"}


def told_in(
    folder: Path, order: tuple[tuple[Part, int, float], ...], bound: BoundTo | None = BOUND[0]
) -> Spend | None:
    """Return what the last of a run's releases is told, or nothing where one was refused."""
    ledger, limit = Ledger(folder / "ledger.db"), Limit(epsilon=99.0, delta=DELTA, run=3.0)
    spend = None
    for part, number, noise in order:
        mechanism, run = mechanism_of(noise, steps=1), charged_as("run", part)
        try:
            spend = charged(ledger, "p", run, number, mechanism, limit, DELTA, bound=bound)
        except BudgetExceeded:
            return None
    return spend


def check_orders(folder: Path, name: str) -> None:
    """Raise unless a run's releases are all allowed in any order or in none, and cost the same."""
    told = [
        told_in(folder / f"{name} {place}", order)
        for place, order in enumerate(permutations(RELEASES[name]))
    ]
    found = {
        s and (round(s.run_epsilon, 9), round(s.cohort_epsilon, 9), round(s.run_common_epsilon, 9))
        for s in told
    }
    assert len(found) == 1, f"the order decides: {found}"
    assert (None not in found) == (name in WITHIN), f"{name}: {found}"


@pytest.mark.parametrize("name", RELEASES)
def test_a_runs_releases_are_within_its_epsilon_in_any_order_or_in_none(
    tmp_path: Path, name: str
) -> None:
    check_orders(tmp_path, name)


def test_a_round_of_training_that_is_asked_for_again_is_charged_and_not_refused(
    tmp_path: Path,
) -> None:
    spend = told_in(tmp_path, (("train", 1, 1.5), ("train", 1, 1.5)))
    assert spend is not None
    assert spend.run_epsilon == pytest.approx(epsilon_of([mechanism_of(1.5, steps=2)], DELTA))
    assert told_in(tmp_path / "more", (("train", 1, 1.5), ("train", 2, 1.5))) is None


def test_what_is_bound_to_nothing_adds_up_and_bounds_the_claim_of_its_run(tmp_path: Path) -> None:
    ledger, limit = Ledger(tmp_path / "ledger.db"), Limit(epsilon=8.0, delta=DELTA, run=3.0)
    train, test = mechanism_of(1.6, steps=1), count_mechanism(1.0, 1.6)
    charged(ledger, "p", "run", 1, train, limit, DELTA)
    with pytest.raises(BudgetExceeded, match="too little noise"):
        charged(ledger, "p", "run/test", 1, test, limit, DELTA, bound=BOUND[0])
    wide = Limit(epsilon=8.0, delta=DELTA)
    told = charged(ledger, "p", "run/test", 1, test, wide, DELTA, bound=BOUND[0])
    assert told.cohort_epsilon == told.run_epsilon == epsilon_of([train, test], DELTA)


@pytest.mark.parametrize(
    "other",
    [
        BOUND[1],
        BoundTo(configuration="one", seed=1, split=""),
        BoundTo(configuration="one", seed=0, split="another key"),
    ],
)
@pytest.mark.parametrize("part", PARTS)
def test_a_ledger_alone_refuses_a_name_that_stands_for_something_else(
    tmp_path: Path, part: Part, other: BoundTo
) -> None:
    ledger, limit = Ledger(tmp_path / "ledger.db"), Limit(epsilon=8.0, delta=DELTA)
    small = mechanism_of(20.0, steps=1)
    charged(ledger, "p", "run", 1, small, limit, DELTA, bound=BOUND[0])
    before = ledger.head()
    with pytest.raises(RunBegun, match="Run run was charged for another"):
        charged(ledger, "q", charged_as("run", part), 1, small, limit, DELTA, bound=other)
    with pytest.raises(RunBegun):
        ledger.check_begun("run", other)
    assert ledger.head() == before
    ledger.check_begun("run", BOUND[0])
    ledger.check_begun("another", other)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_what_a_plan_counts_on_is_what_an_evaluation_is_charged(kind: str) -> None:
    network = "unet" if CONFIGS[kind]["kind"] == "segmentation" else "small_cnn"
    config = parse_config("""
name: planned
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [16, 16]}}
model: {network: small_cnn}
training: {rounds: 4}
selection: {rule: last}
evaluation: {count_noise: 2.0}
privacy: none
""")
    content = config.model_dump(mode="json") | {
        "task": CONFIGS[kind],
        "model": {"network": network},
    }
    found = type(config).model_validate(content)
    counted = made(kind).statistics(scored(kind, 20), rules(count_noise=2.0))
    assert found.noised_rows**0.5 == pytest.approx(count_sensitivity(counted))
    assert (evaluations(found, "validation"), evaluations(found, "test")) == (0, 1)
