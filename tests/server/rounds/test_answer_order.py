from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.messages.wire import Refusal, RefusalReason, SiteUpdate, TrainRequest
from server.rounds.answer_order import Answer, in_order
from server.rounds.non_admission_reasons import Fault
from server.rounds.update_admission import NotAdmitted, admit
from server.rounds.update_norm_bound import bounded
from tests.server.hospitals import config_of, random_update, same_bits
from tests.server.rounds.test_update_norm_bound import Heard

ORDER = ("a", "b", "c", "d", "e")
WEIGHTS = {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}
REQUEST = TrainRequest(run="r", round=1, seed=0, config=config_of(), weights=WEIGHTS)
UPDATES = {site: random_update(site, n, REQUEST) for n, site in enumerate(ORDER)}


def refusal(site: str) -> Refusal:
    return Refusal(run="r", round=1, site=site, reason=RefusalReason.FAILED)


def faulty(site: str) -> NotAdmitted:
    return NotAdmitted(site=site, fault=Fault.NOT_FINITE, detail="", used_up=True)


kinds = st.sampled_from(["update", "refusal", "faulty", "nothing"])


@given(st.permutations(ORDER), st.lists(kinds, min_size=5, max_size=5))
def test_updates_leave_in_the_sites_order_bit_for_bit_whoever_refuses_or_is_silent(
    arrival: list[str], behaviour: list[str]
) -> None:
    kind = dict(zip(ORDER, behaviour, strict=True))
    answers: dict[str, dict[str, Answer]] = {
        "update": dict(UPDATES),
        "refusal": {s: refusal(s) for s in ORDER},
        "faulty": {s: faulty(s) for s in ORDER},
    }
    made = {s: answers[kind[s]][s] for s in ORDER if kind[s] != "nothing"}
    found = list(in_order((made[s] for s in arrival if s in made), ORDER))
    updates = [one for one in found if isinstance(one, SiteUpdate)]
    assert [one.site for one in updates] == [s for s in ORDER if kind[s] == "update"]
    assert len(found) == len(made)
    for one in updates:
        assert same_bits(one.delta, UPDATES[one.site].delta)
        assert one == replace(UPDATES[one.site], delta=one.delta)


def test_a_control_variate_waits_with_its_update() -> None:
    with_control = replace(UPDATES["b"], control_delta=UPDATES["c"].delta)
    found = list(in_order(iter([with_control, UPDATES["a"]]), ORDER))
    assert isinstance(found[1], SiteUpdate)
    assert found[1].control_delta is not None
    assert same_bits(found[1].control_delta, UPDATES["c"].delta)


@pytest.mark.slow
def test_no_more_than_one_update_is_in_memory_in_any_order_of_arrival() -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def arriving(order: str) -> Iterator[Answer]:
        nonlocal most
        for seed, site in enumerate(order):
            gc.collect()
            most = max(most, len(alive))
            yield one(site, seed)

    def one(site: str, seed: int) -> SiteUpdate:
        update = random_update(site, seed, REQUEST)
        alive.add(update.delta["weight"])
        return update

    for order in ("abcde", "edcba", "caebd"):
        for answer in in_order(arriving(order), ORDER):
            del answer
        for answer in bounded(arriving(order), REQUEST, ORDER, 0.0, Heard()):
            del answer
    assert most == 0  # when the next is made, the one before is gone


def test_an_update_that_waited_is_read_when_the_one_before_is_gone_from_all_who_passed_it() -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def arriving() -> Iterator[Answer]:
        for seed, site in enumerate("edcba"):
            update = [random_update(site, seed, REQUEST)]
            made.append(weakref.ref(update[0].delta["weight"]))
            yield update.pop()

    for number, answer in enumerate(in_order(admit(arriving(), REQUEST, ORDER), ORDER)):
        if number > 0:  # b to e were on disk
            assert [tensor() for tensor in made] == [None] * 5
        del answer
