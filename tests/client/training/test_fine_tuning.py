from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.training.batches import batches
from client.training.evaluation import score
from client.training.fine_tuning import fine_tune
from client.training.local_model import LocalModel, open_local_model
from client.training.training_site import Site, data_order
from common.config.run_config import Personalisation, RunConfig
from common.data.weights import Weights, load_into, trainable
from tests.client.local_runs import (
    assert_close,
    config_of,
    copied,
    image_config_of,
    nobody,
    site_of,
    weights_of,
)
from tests.server.hospitals import same_bits


def rules_of(steps: int = 10, learning_rate: float | None = 0.1) -> Personalisation:
    return Personalisation(method="fine_tune", steps=steps, learning_rate=learning_rate)


def tuned(config: RunConfig, site: Site, rules: Personalisation, seed: int = 0) -> Weights:
    return fine_tune(site, open_local_model(config, 0), weights_of(config), rules, seed)


def loss_of(local_model: LocalModel, site: Site, weights: Weights) -> float:
    load_into(local_model.model, weights)
    return float(score(local_model, site.validation).loss.mean())


def slowly(
    config: RunConfig,
    site: Site,
    optimizer: torch.optim.Optimizer,
    local_model: LocalModel,
    steps: int,
) -> list[Weights]:
    """Return the weights before the first step and after each, line by line."""
    training = config.training
    load_into(local_model.model, weights_of(config))
    found: list[Weights] = [copied(trainable(local_model.model))]
    for batch in batches(
        site.train,
        training.batch_patients,
        training.images_per_patient,
        steps,
        data_order(0, site.name, 0),
    ):
        losses = local_model.task.item_loss(
            local_model.model(batch.image, batch.table), batch.target
        )
        by_patient = [losses[batch.patient == p].mean() for p in batch.patient.unique()]
        optimizer.zero_grad()
        torch.stack(by_patient).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        found.append(copied(trainable(local_model.model)))
    return found


# --- the steps are those of the configuration --------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 13])
@pytest.mark.parametrize(
    ("training", "rate", "build"),
    [
        ("", 0.3, lambda p: torch.optim.SGD(p, lr=0.3)),
        ("", None, lambda p: torch.optim.SGD(p, lr=0.01)),
        (
            ", momentum: 0.9, weight_decay: 0.2",
            0.1,
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.2),
        ),
        (
            ", optimizer: adamw, weight_decay: 0.2",
            0.1,
            lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2),
        ),
        (", schedule: cosine", 0.3, lambda p: torch.optim.SGD(p, lr=0.3)),
    ],
)
def test_without_validation_patients_the_last_step_of_the_configured_optimiser_is_kept(
    steps: int, training: str, rate: float | None, build: type[torch.optim.SGD]
) -> None:
    config, site = config_of(training=training), site_of(validation=nobody())
    local_model = open_local_model(config, 0)
    expected = slowly(config, site, build(local_model.model.parameters()), local_model, steps)
    assert_close(tuned(config, site, rules_of(steps, rate)), expected[-1])


def test_with_validation_patients_the_best_of_the_looks_is_kept() -> None:
    config, site = config_of(), site_of()
    local_model = open_local_model(config, 0)
    path = slowly(
        config, site, torch.optim.SGD(local_model.model.parameters(), lr=3.0), local_model, 20
    )
    looks = path[::4]  # before the first step, and five times on the way
    losses = [loss_of(local_model, site, weights) for weights in looks]
    best = looks[losses.index(min(losses))]
    # The case says something only where the best is neither the first nor the last.
    assert 0 < losses.index(min(losses)) < 5
    assert_close(tuned(config, site, rules_of(20, 3.0)), best)


# --- no site ends worse, as far as its validation patients can tell ----------------------------


@settings(max_examples=25)
@given(st.floats(1e-4, 1e4), st.integers(1, 12), st.integers(0, 1000))
def test_what_is_kept_never_validates_worse_than_the_shared_model(
    rate: float, steps: int, seed: int
) -> None:
    config, site = config_of(), site_of()
    local_model, shared = open_local_model(config, 0), weights_of(config)
    found = fine_tune(site, local_model, shared, rules_of(steps, rate), seed)
    assert loss_of(local_model, site, found) <= loss_of(local_model, site, shared)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weights_that_are_no_numbers_are_never_kept(optimizer: str) -> None:
    config, site = config_of(training=f", optimizer: {optimizer}"), site_of()
    broken = site.train.table.clone()
    broken[0, 0] = math.inf
    site = replace(site, train=replace(site.train, table=broken))
    shared = weights_of(config)
    assert same_bits(tuned(config, site, rules_of(40)), shared)


def test_a_shared_model_that_gives_no_numbers_is_left_for_one_that_does() -> None:
    config, site = config_of(), site_of(validation=nobody())
    local_model = open_local_model(config, 0)
    broken = {n: torch.full_like(v, math.nan) for n, v in weights_of(config).items()}
    # Nothing better is found from there, and that is no error.
    found = fine_tune(site_of(), local_model, broken, rules_of(), 0)
    assert all(bool(value.isnan().all()) for value in found.values())
    assert all(bool(v.isfinite().all()) for v in tuned(config, site, rules_of()).values())


# --- nothing else is touched, and the same call gives the same bits -----------------------------


def test_the_same_call_gives_the_same_bits_whatever_was_drawn_before() -> None:
    config = image_config_of(dropout=0.5)
    image = (1, 16, 16)
    first = tuned(config, site_of(image=image), rules_of(6))
    torch.rand(17)
    assert same_bits(tuned(config, site_of(image=image), rules_of(6)), first)


def test_another_seed_draws_other_batches() -> None:
    config, site = config_of(), site_of(validation=nobody())
    assert not same_bits(tuned(config, site, rules_of()), tuned(config, site, rules_of(), 1))


def test_the_global_generator_is_left_alone() -> None:
    config, before = image_config_of(dropout=0.5), torch.get_rng_state()
    tuned(config, site_of(image=(1, 16, 16)), rules_of(6))
    assert torch.equal(before, torch.get_rng_state())


def test_the_shared_weights_are_not_changed_and_the_test_patients_not_looked_at() -> None:
    config, site = config_of(), site_of()
    shared = weights_of(config)
    before = copied(shared)
    found = fine_tune(site, open_local_model(config, 0), shared, rules_of(), 0)
    assert same_bits(shared, before)
    assert not same_bits(found, shared)
    other = replace(site, test=nobody())
    assert same_bits(tuned(config, other, rules_of()), found)


def test_what_another_site_left_in_the_network_does_not_matter() -> None:
    config, site = config_of(), site_of()
    local_model, shared = open_local_model(config, 0), weights_of(config)
    first = copied(fine_tune(site, local_model, shared, rules_of(), 0))
    assert same_bits(fine_tune(site, local_model, shared, rules_of(), 0), first)
