"""A patient is in one part of a run, so a run claims the largest of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.charge import Charge
from client.ledger import Ledger, Limit
from client.parts import Part, binding, charged_as, part_of, run_epsilon
from common.config import parse_config
from common.errors import BudgetExceeded
from common.measurement import evaluations, noised_rows
from common.metrics import count_sensitivity
from common.privacy.accounting import epsilon_of
from common.privacy.plan import Mechanism, count_mechanism
from tests.common.every_task import CONFIGS, made, rules, scored
from tests.privacy.made_up import mechanism_of

DELTA = 1e-5
PARTS: tuple[Part, ...] = ("train", "validation", "test", "statistics")


def charge(run: str, part: Part, mechanism: Mechanism) -> Charge:
    return Charge(
        cohort="p", run=charged_as(run, part), round=1, attempt=1, mechanism=mechanism
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_ledgers_name_gives_run_and_part_back(part: Part) -> None:
    assert part_of(charged_as("run-1.test", part)) == ("run-1.test", part)


charges = st.lists(st.tuples(
    st.sampled_from(["a", "b", "c"]), st.sampled_from(PARTS), st.floats(2.0, 50.0),
    st.sampled_from([1.0, 1.0, 0.3]),
), min_size=1, max_size=8)  # fmt: skip


@settings(max_examples=25)
@given(charges, st.data())
def test_no_patient_is_charged_less_than_what_was_told_of_them(
    listed: list[tuple[str, Part, float, float]], data: st.DataObject
) -> None:
    """Whatever part a patient is in, run by run, they are within what binds."""
    made_of = [charge(r, p, mechanism_of(s, sampling_rate=q, steps=1)) for r, p, s, q in listed]
    own = {run: data.draw(st.sampled_from(PARTS[:3])) for run in "abc"}
    of_patient = [
        c.mechanism for c, (run, part, *_) in zip(made_of, listed, strict=True)
        if part in {own[run], "statistics"}
    ]  # fmt: skip
    bound = epsilon_of(binding(made_of), DELTA)
    assert epsilon_of(of_patient, DELTA) <= bound * (1 + 1e-9) + 1e-9
    everything = epsilon_of([c.mechanism for c in made_of], DELTA)
    assert bound <= everything * (1 + 1e-9) + 1e-9
    for run in "abc":
        mine = [c.mechanism for c in made_of if part_of(c.run) in {
            (run, own[run]), (run, "statistics")
        }]  # fmt: skip
        assert epsilon_of(mine, DELTA) <= run_epsilon(made_of, run, DELTA) + 1e-9


def test_evaluation_costs_a_run_nothing_that_training_costs_more_for(tmp_path: Path) -> None:
    ledger, limit = Ledger(tmp_path / "ledger.db"), Limit(epsilon=8.0, delta=DELTA, run=3.0)
    train, test = mechanism_of(1.4, steps=1), count_mechanism(1.0, 1.5)
    spent = ledger.charge("p", "run", 1, train, limit, DELTA)
    told = ledger.charge("p", "run/test", 1, test, limit, DELTA)
    assert told.cohort_epsilon == spent.cohort_epsilon == pytest.approx(epsilon_of([train], DELTA))
    other = ledger.charge("p", "other/test", 1, test, limit, DELTA)
    assert other.cohort_epsilon == pytest.approx(epsilon_of([train, test], DELTA))
    assert other.run_epsilon == pytest.approx(epsilon_of([test], DELTA))
    with pytest.raises(BudgetExceeded, match="too little noise"):
        ledger.charge("p", "third/test", 1, count_mechanism(1.0, 1.0), limit, DELTA)
    everybody = ledger.charge("p", "run/statistics", 0, count_mechanism(1.0, 20.0), limit, DELTA)
    assert everybody.cohort_epsilon > other.cohort_epsilon


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
        "task": CONFIGS[kind], "model": {"network": network},
    }  # fmt: skip
    found = type(config).model_validate(content)
    counted = made(kind).statistics(scored(kind, 20), rules(count_noise=2.0))
    assert noised_rows(found) ** 0.5 == pytest.approx(count_sensitivity(counted))
    assert (evaluations(found, "validation"), evaluations(found, "test")) == (0, 1)
