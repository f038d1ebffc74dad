from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training.local_model import open_local_model
from client.training.local_round import make_optimizer, train_round
from client.training.training_site import Site
from common.config.learning_rate import learning_rate
from common.config.run_config import RunConfig
from common.data.sample import Patients
from common.data.weights import Weights, trainable
from common.messages.wire import Refusal, RefusalReason, SiteUpdate
from common.platform.errors import ConfigurationError
from tests.client.local_runs import (
    ITEMS,
    assert_close,
    config_of,
    copied,
    image_config_of,
    request_of,
    site_of,
    twin,
    update_of,
)
from tests.privacy.made_up import patients_of
from tests.server.hospitals import same_bits

SCAFFOLD = "aggregation: {rule: scaffold}"
HEAD = "personalisation: {method: personal_head}"
NORM = "personalisation: {method: local_norm}"


# --- against the slow twin -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "training",
    ["", ", proximal: 0.7", ", proximal: 5.0", ", schedule: cosine", ", images_per_patient: 1"],
)
def test_a_round_is_that_of_the_slow_twin(training: str) -> None:
    config, site = config_of(training=training), site_of()
    request = request_of(config, 2)
    update = update_of(site, open_local_model(config, 0), request)
    after, _ = twin(site, config, request)
    assert_close(update.delta, {n: after[n] - v for n, v in request.weights.items()})


@pytest.mark.parametrize(("steps", "same"), [(1, True), (2, False)])
def test_fedprox_pulls_from_the_second_step_on(steps: int, same: bool) -> None:  # noqa: FBT001
    # At the first the distance is 0, and so is its gradient.
    found = []
    for proximal in (0.0, 2.0):
        config = config_of(training=f", proximal: {proximal}", steps=steps)
        found.append(update_of(site_of(), open_local_model(config, 0), request_of(config)).delta)
    assert same_bits(*found) is same


# --- what a round returns ----------------------------------------------------------------------


@pytest.mark.parametrize("training", ["", ", momentum: 0.9", ", weight_decay: 0.1"])
def test_a_delta_is_the_weights_after_less_the_weights_before_exactly(training: str) -> None:
    config = config_of(training=training)
    local_model, request = open_local_model(config, 0), request_of(config)
    before = copied(request.weights)
    update = update_of(site_of(), local_model, request)
    after = trainable(local_model.model)
    assert same_bits(update.delta, {n: after[n] - v for n, v in before.items()})
    assert any(bool(change.any()) for change in update.delta.values())


@pytest.mark.parametrize("more", ["", SCAFFOLD])
def test_what_was_sent_is_not_changed_in_place(more: str) -> None:
    config = config_of(more)
    request = request_of(config)
    weights, control = copied(request.weights), copied(request.control or {})
    update_of(site_of(), open_local_model(config, 0), request)
    assert same_bits(request.weights, weights)
    assert same_bits(request.control or {}, control)


def test_an_update_is_its_own_memory_and_the_next_round_leaves_it_alone() -> None:
    config, site = config_of(), site_of()
    local_model = open_local_model(config, 0)
    first = update_of(site, local_model, request_of(config, 1))
    kept = copied(first.delta)
    update_of(site, local_model, request_of(config, 2))
    assert same_bits(first.delta, kept)


def test_the_weights_that_another_site_left_in_the_network_do_not_matter() -> None:
    config, site = config_of(), site_of()
    local_model, request = open_local_model(config, 0), request_of(config)
    alone = update_of(site, local_model, request)
    with torch.no_grad():
        for value in local_model.model.parameters():
            value.add_(3.0)
    assert same_bits(update_of(site, local_model, request).delta, alone.delta)


@pytest.mark.parametrize("more", [HEAD, NORM])
def test_a_request_that_names_a_sites_own_layers_is_refused(more: str) -> None:
    config = image_config_of(more)
    site, local_model = site_of(image=(1, 16, 16)), open_local_model(config, 0)
    request = request_of(config)
    assert update_of(site, local_model, request).delta.keys().isdisjoint(local_model.local)
    own = min(local_model.local)
    asked = replace(request, weights={**request.weights, own: local_model.trained[own].clone()})
    with pytest.raises(ConfigurationError, match=re.escape(own)):
        train_round(site, local_model, asked)
    control = {name: torch.zeros_like(value) for name, value in local_model.trained.items()}
    with pytest.raises(ConfigurationError, match="keeps at each site"):
        train_round(site, local_model, replace(request, control=control))


@pytest.mark.parametrize("more", [HEAD, NORM])
def test_what_stays_at_the_site_is_in_no_update(more: str) -> None:
    config, site = image_config_of(more), site_of(image=(1, 16, 16))
    local_model = open_local_model(config, 0)
    update = update_of(site, local_model, request_of(config))
    assert local_model.local
    assert update.delta.keys() == request_of(config).weights.keys()
    assert not local_model.local & update.delta.keys()
    assert site.memory.recall("run", 1).keys() == local_model.local


@pytest.mark.parametrize("more", [HEAD, NORM])
def test_a_site_goes_on_from_its_own_layers_and_not_from_the_last_sites(more: str) -> None:
    config, image = image_config_of(more), (1, 16, 16)
    other = Site(
        name="there",
        train=patients_of(ITEMS, image, 9),
        validation=patients_of(ITEMS),
        test=patients_of(ITEMS),
    )

    def second_round(*, between: bool) -> tuple[Weights, Weights]:
        site, local_model = site_of(image=image), open_local_model(config, 0)
        update_of(site, local_model, request_of(config, 1))
        if between:
            update_of(other, local_model, request_of(config, 1))
        return update_of(site, local_model, request_of(config, 2)).delta, site.memory.recall(
            "run", 2
        )

    for found, expected in zip(
        second_round(between=True), second_round(between=False), strict=True
    ):
        assert same_bits(found, expected)


def test_an_update_tells_steps_that_are_public_and_no_count_of_patients() -> None:
    config = config_of()
    update = update_of(site_of(), open_local_model(config, 0), request_of(config))
    assert (update.steps, update.spend, update.control_delta) == (3, None, None)


# --- each patient weighs the same ------------------------------------------------------------


def test_a_patient_with_every_image_twice_moves_the_weights_as_before() -> None:
    config = config_of(training=", images_per_patient: 6", batch="all")
    once = patients_of(ITEMS, image=(0,), seed=1)
    twice = torch.arange(len(once.patient)).repeat_interleave(2)
    doubled = Patients(
        image=once.image[twice],
        table=once.table[twice],
        target=once.target[twice],
        patient=once.patient[twice],
        pseudonyms=once.pseudonyms,
    )
    found, expected = (
        update_of(site_of(train), open_local_model(config, 0), request_of(config)).delta
        for train in (doubled, once)
    )
    assert_close(found, expected)


# --- the same bits again -----------------------------------------------------------------------

REPEATED = [
    config_of(),
    config_of(SCAFFOLD),
    config_of(training=", proximal: 0.1"),
    image_config_of(HEAD, dropout=0.5),
    image_config_of("", ", augment: true, optimizer: adamw"),
]
NAMES = ["plain", "scaffold", "fedprox", "dropout", "augment"]


@pytest.mark.parametrize("config", REPEATED, ids=NAMES)
def test_the_same_request_gives_the_same_bits_whatever_was_drawn_before(config: RunConfig) -> None:
    image = (1, 16, 16) if config.cohort.images else (0,)
    first = update_of(site_of(image=image), open_local_model(config, 0), request_of(config))
    torch.rand(17)
    local_model, site = open_local_model(config, 0), site_of(image=image)
    for _ in range(2):  # in another process, and once more in the same
        again = update_of(site, local_model, request_of(config))
        assert same_bits(first.delta, again.delta)
        assert same_bits(first.control_delta or {}, again.control_delta or {})


@pytest.mark.parametrize("config", REPEATED, ids=NAMES)
def test_the_global_generator_is_left_alone(config: RunConfig) -> None:
    site = site_of(image=(1, 16, 16) if config.cohort.images else (0,))
    local_model, before = open_local_model(config, 0), torch.get_rng_state()
    update_of(site, local_model, request_of(config))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("changed", [{"round": 2}, {"seed": 1}])
def test_another_round_or_seed_draws_other_batches(changed: dict[str, int]) -> None:
    config, site = config_of(), site_of()
    request = request_of(config)
    first = update_of(site, open_local_model(config, 0), request)
    number, seed = changed.get("round", 1), changed.get("seed", 0)
    other = replace(request, round=number, seed=seed)
    assert not same_bits(first.delta, update_of(site, open_local_model(config, 0), other).delta)


def test_sites_with_the_same_patients_draw_batches_of_their_own() -> None:
    config, here = config_of(), site_of()
    found = [
        update_of(replace(here, name=name), open_local_model(config, 0), request_of(config)).delta
        for name in ("here", "there")
    ]
    assert not same_bits(*found)


# --- too few patients ----------------------------------------------------------------------------


@pytest.mark.parametrize(("patients", "refused"), [(1, True), (9, True), (10, False)])
def test_a_site_with_fewer_patients_than_the_smallest_cohort_takes_no_part(
    patients: int,
    refused: bool,  # noqa: FBT001
) -> None:
    config = config_of(cohort=", smallest_cohort: 10")
    # Several items each: it is patients that count.
    site = site_of(patients_of((3,) * patients, image=(0,)))
    answer = train_round(site, open_local_model(config, 0), request_of(config))
    if refused:
        assert isinstance(answer, Refusal)
        assert answer.reason is RefusalReason.TOO_FEW_PATIENTS
        assert (answer.run, answer.round, answer.site) == ("run", 1, "here")
    else:
        assert isinstance(answer, SiteUpdate)


def test_a_refusal_leaves_network_and_memory_as_they_were() -> None:
    config = config_of(SCAFFOLD)
    site, local_model = site_of(patients_of((1,) * 4, image=(0,))), open_local_model(config, 0)
    before = copied(trainable(local_model.model))
    assert isinstance(train_round(site, local_model, request_of(config)), Refusal)
    assert same_bits(trainable(local_model.model), before)
    assert site.memory.recall("run", 9) == {}


# --- rates -------------------------------------------------------------------------------------


@given(st.integers(2, 200), st.floats(1e-5, 10.0))
def test_the_cosine_falls_from_the_rate_to_a_twentieth_and_never_rises(
    rounds: int, rate: float
) -> None:
    rules = config_of().training.model_copy(
        update={"rounds": rounds, "learning_rate": rate, "schedule": "cosine"}
    )
    rates = [learning_rate(rules, number) for number in range(1, rounds + 2)]
    assert rates[0] == pytest.approx(rate)
    assert rates[rounds - 1] == pytest.approx(0.05 * rate)
    assert rates[rounds] == rates[rounds - 1]
    assert all(later <= earlier for earlier, later in pairwise(rates))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            {"optimizer": "sgd", "momentum": 0.7, "weight_decay": 0.01},
            {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.01},
        ),
        ({"optimizer": "adamw", "weight_decay": 0.02}, {"lr": 0.1, "weight_decay": 0.02}),
    ],
)
def test_the_optimiser_has_what_the_configuration_says_and_leaves_the_frozen_alone(
    rules: dict[str, str | float], expected: dict[str, float]
) -> None:
    training = config_of().training.model_copy(update=rules)
    model = open_local_model(config_of(), 0).model
    next(model.parameters()).requires_grad_(False)
    (group,) = make_optimizer(model, training, 1).param_groups
    assert {name: group[name] for name in expected} == expected
    assert len(group["params"]) == len(list(model.parameters())) - 1
