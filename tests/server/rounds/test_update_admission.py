from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config.run_config import RunConfig
from common.messages.wire import (
    EvaluationRequest,
    Refusal,
    RefusalReason,
    SiteReport,
    SiteUpdate,
    TrainRequest,
)
from common.privacy.plan import LedgerHead, Mechanism, Spend
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted, admit, admit_reports
from tests.server.hospitals import FakeSites, config_of, random_update, start

SITES = ("east", "north")
PRIVATE = config_of().model_validate(
    config_of().model_dump() | {"privacy": {"unit": "patient", "epsilon": 3.0}}
)
SPEND = Spend(
    mechanism=Mechanism(
        noise_multiplier=1.0, sampling_rate=1.0, steps=1, clip_norm=1.0, divisor=60.0
    ),
    run_epsilon=1.5,
    run_delta=1e-3,
    cohort_epsilon=2.5,
    cohort_delta=1e-4,
    ledger=LedgerHead(charges=7, hash="a" * 64),
    simulated_noise=False,
)


def request_of(config: RunConfig | None = None, *, scaffold: bool = False) -> TrainRequest:
    chosen = config or config_of()
    weights = {"weight": torch.zeros(1, 4), "bias": torch.zeros(1)}
    return TrainRequest(
        run="r1",
        round=2,
        seed=0,
        config=chosen,
        weights=weights,
        control=weights if scaffold else None,
    )


def faults(request: TrainRequest, *answers: SiteUpdate | Refusal) -> list[Fault | None]:
    found = admit(iter(answers), request, SITES)
    return [one.fault if isinstance(one, NotAdmitted) else None for one in found]


def with_value(update: SiteUpdate, value: float) -> SiteUpdate:
    spoiled = {n: v.clone() for n, v in update.delta.items()}
    spoiled["weight"][0, 2] = value
    return replace(update, delta=spoiled)


WRONG: list[tuple[Fault, Callable[[SiteUpdate], SiteUpdate]]] = [
    (Fault.WRONG_RUN, lambda u: replace(u, run="r2")),
    (Fault.WRONG_ROUND, lambda u: replace(u, round=1)),
    (Fault.UNKNOWN_SITE, lambda u: replace(u, site="mallory")),
    (Fault.WRONG_TENSORS, lambda u: replace(u, delta={"weight": u.delta["weight"]})),
    (Fault.WRONG_TENSORS, lambda u: replace(u, delta={**u.delta, "more": torch.zeros(1)})),
    (Fault.WRONG_TENSORS, lambda u: replace(u, delta={**u.delta, "bias": torch.zeros(2)})),
    (Fault.WRONG_TENSORS, lambda u: replace(u, delta={**u.delta, "bias": torch.zeros(1).double()})),
    (Fault.NOT_FINITE, lambda u: with_value(u, math.nan)),
    (Fault.NOT_FINITE, lambda u: with_value(u, -math.inf)),
    (Fault.TOO_LARGE, lambda u: with_value(u, 1e5)),
]


@pytest.mark.parametrize(("fault", "spoil"), WRONG)
def test_a_wrong_update_is_refused_with_its_reason_and_the_others_go_on(
    fault: Fault, spoil: Callable[[SiteUpdate], SiteUpdate]
) -> None:
    request = request_of()
    good, bad = random_update("east", 1, request), spoil(random_update("north", 2, request))
    assert faults(request, good, bad) == [None, fault]
    assert faults(request, bad, good) == [fault, None]


def test_a_refused_update_says_name_value_and_expectation() -> None:
    request = request_of()
    bad = with_value(random_update("east", 1, request), 1e5)
    (found,) = admit(iter([bad]), request, SITES)
    assert isinstance(found, NotAdmitted)
    assert "norm=1e+05" in found.detail
    assert "expected at most 1e+04" in found.detail


def test_the_ceiling_of_the_norm_is_configurable_and_grows_with_the_weights() -> None:
    request = request_of(config_of("aggregation: {largest_update: 2}"))
    long = with_value(random_update("east", 1, request), 100.0)
    assert faults(request, long) == [Fault.TOO_LARGE]
    heavy = replace(request, weights={"weight": torch.full((1, 4), 50.0), "bias": torch.zeros(1)})
    assert faults(heavy, long) == [None]


@given(st.integers(0, 4), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_one_value_that_is_not_finite_is_found_wherever_it_stands(at: int, value: float) -> None:
    request = request_of()
    update = random_update("east", 1, request)
    flat = torch.cat([update.delta["weight"].flatten(), update.delta["bias"]])
    flat[at] = value
    delta = {"weight": flat[:4].reshape(1, 4), "bias": flat[4:]}
    assert faults(request, replace(update, delta=delta)) == [Fault.NOT_FINITE]


def test_a_site_counts_once_and_the_first_answer_stands() -> None:
    request = request_of()
    first, second = random_update("east", 1, request), random_update("east", 2, request)
    found = list(admit(iter([first, second]), request, SITES))
    assert found[0] is first
    assert isinstance(found[1], NotAdmitted)
    assert (found[1].fault, found[1].used_up) == (Fault.DUPLICATE, False)


def test_a_late_answer_to_the_round_before_does_not_use_up_a_sites_turn() -> None:
    request = request_of()
    update = random_update("east", 1, request)
    assert faults(request, replace(update, round=1), update) == [Fault.WRONG_ROUND, None]


def test_a_private_run_admits_no_update_without_its_charge() -> None:
    request = request_of(PRIVATE)
    bare = random_update("east", 1, request)
    assert faults(request, bare) == [Fault.NO_SPEND]
    assert faults(request, replace(bare, spend=SPEND)) == [None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_epsilon": math.nan},
        {"run_epsilon": -1.0},
        {"cohort_epsilon": math.inf},
        {"run_delta": 0.0},
        {"run_delta": 1.0},
        {"cohort_delta": math.nan},
        {"cohort_delta": 0.0},
        {"ledger": LedgerHead(charges=0, hash="0" * 64)},
    ],
)
def test_a_charge_that_no_ledger_could_have_made_is_refused(
    wrong: dict[str, float | LedgerHead],
) -> None:
    request = request_of(PRIVATE)
    spend = replace(SPEND, **wrong)  # type: ignore[arg-type]
    assert faults(request, replace(random_update("east", 1, request), spend=spend)) == [
        Fault.WRONG_SPEND
    ]


@given(st.integers(1, 20), st.integers(1, 20))
def test_the_number_of_charges_of_a_site_only_grows_within_a_run(known: int, told: int) -> None:
    request = request_of(PRIVATE)
    spend = replace(SPEND, ledger=LedgerHead(charges=told, hash="b" * 64))
    update = replace(random_update("east", 1, request), spend=spend)
    ledgers = {"east": LedgerHead(charges=known, hash="a" * 64)}
    (found,) = admit(iter([update]), request, SITES, ledgers)
    if told > known:
        assert found is update
        return
    assert isinstance(found, NotAdmitted)
    assert found.fault is Fault.OLD_LEDGER
    assert found.detail == f"ledger.charges={told}, expected more than {known}"


def test_one_sites_charges_say_nothing_of_anothers() -> None:
    request = request_of(PRIVATE)
    update = replace(random_update("east", 1, request), spend=SPEND)
    ledgers = {"north": LedgerHead(charges=99, hash="a" * 64)}
    assert list(admit(iter([update]), request, SITES, ledgers)) == [update]


def test_scaffold_admits_no_update_without_a_fitting_control() -> None:
    request = request_of(scaffold=True)
    update = random_update("east", 1, request)
    fitting = replace(update, control_delta=update.delta)
    assert faults(request, fitting) == [None]
    assert faults(request, update) == [Fault.NO_CONTROL]
    assert faults(request, replace(update, control_delta={})) == [Fault.NO_CONTROL]
    spoiled = with_value(update, math.nan).delta
    assert faults(request, replace(update, control_delta=spoiled)) == [Fault.NOT_FINITE]


def test_a_refusal_passes_and_uses_up_the_sites_turn() -> None:
    request = request_of()
    refusal = Refusal(run="r1", round=2, site="east", reason=RefusalReason.BUDGET)
    found = list(admit(iter([refusal, random_update("east", 1, request)]), request, SITES))
    assert found[0] is refusal
    assert isinstance(found[1], NotAdmitted)


# --- reports ---------------------------------------------------------------------------------


def reports_of() -> tuple[EvaluationRequest, list[SiteReport]]:
    config = config_of()
    _, state = start(config)
    request = EvaluationRequest(
        run="r1", round=2, seed=0, config=config, weights=state.weights, split="validation"
    )
    sites = FakeSites()
    answers = sites.evaluate(request, sites.available())
    return request, [a for a in answers if isinstance(a, SiteReport)]


def admitted(
    request: EvaluationRequest, reports: list[SiteReport]
) -> tuple[list[str], list[Fault]]:
    order = ("east", "north", "south", "west")
    kept, refused = admit_reports(iter(reports), request, order)
    return [report.site for report in kept], [one.fault for one in refused]


def test_reports_come_back_in_the_order_of_the_sites() -> None:
    request, reports = reports_of()
    assert admitted(request, reports[::-1]) == (["east", "north", "south", "west"], [])


def test_a_report_that_differs_in_kind_from_most_is_left_out_even_if_it_is_the_first() -> None:
    request, reports = reports_of()
    cells = {n: np.zeros(2) for n in reports[0].statistics.cells}
    odd = replace(reports[0], statistics=replace(reports[0].statistics, cells=cells))
    kept, refused = admitted(request, [odd, *reports[1:]])
    assert kept == ["north", "south", "west"]
    assert refused == [Fault.WRONG_STATISTICS]


@pytest.mark.parametrize("noise", [math.nan, math.inf, -1.0, 9.0])
def test_a_report_of_other_noise_than_was_asked_for_is_left_out(noise: float) -> None:
    request, reports = reports_of()
    statistics = replace(reports[0].statistics, noise=noise)
    kept, refused = admitted(request, [replace(reports[0], statistics=statistics), *reports[1:]])
    assert kept == ["north", "south", "west"]
    assert refused == [Fault.WRONG_STATISTICS]


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_report_with_impossible_counts_is_left_out(value: float) -> None:
    request, reports = reports_of()
    statistics = replace(reports[0].statistics, patients=np.array(value))
    kept, refused = admitted(request, [replace(reports[0], statistics=statistics), *reports[1:]])
    assert kept == ["north", "south", "west"]
    assert refused == [Fault.WRONG_STATISTICS]


def test_charges_for_noised_counts_only_grow_too_and_are_never_missing() -> None:
    request, reports = reports_of()
    evaluation = request.config.evaluation.model_copy(update={"count_noise": 2.0})
    request = replace(request, config=request.config.model_copy(update={"evaluation": evaluation}))
    east, north, south, west = (
        replace(report, spend=SPEND, statistics=replace(report.statistics, noise=4.0))
        for report in sorted(reports, key=lambda report: report.site)
    )
    ledgers = {
        "north": LedgerHead(charges=6, hash="a" * 64),
        "south": LedgerHead(charges=7, hash="a" * 64),
    }
    bare = replace(west, spend=None)
    kept, refused = admit_reports(
        iter([east, north, south, bare]), request, ("east", "north", "south", "west"), ledgers
    )
    assert [report.site for report in kept] == ["east", "north"]
    assert [(one.site, one.fault) for one in refused] == [
        ("south", Fault.OLD_LEDGER),
        ("west", Fault.NO_SPEND),
    ]


def test_a_report_of_another_round_a_stranger_or_given_twice_is_left_out() -> None:
    request, reports = reports_of()
    strange = replace(reports[0], site="mallory")
    kept, refused = admitted(
        request, [replace(reports[0], round=1), strange, reports[1], reports[1]]
    )
    assert kept == ["north"]
    assert refused == [Fault.WRONG_ROUND, Fault.UNKNOWN_SITE, Fault.DUPLICATE]
