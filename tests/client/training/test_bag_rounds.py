"""Rounds and measurements of networks that give one answer a patient (model.pool)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from client.training.batches import batches
from client.training.evaluation import score
from client.training.fine_tuning import fine_tune
from client.training.local_model import open_local_model
from client.training.training_site import data_order
from common.config.learning_rate import learning_rate
from common.config.run_config import Personalisation, RunConfig, parse_config
from common.data.sample import Batch
from common.data.weights import load_into, trainable
from common.models.local_layers import local_names
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError
from tests.client.local_runs import (
    ITEMS,
    assert_close,
    config_of,
    copied,
    learnable,
    request_of,
    site_of,
    update_of,
    weights_of,
)
from tests.privacy.made_up import patients_of

IMAGE = (1, 16, 16)
POOLS = ("mean", "max", "attention")


def bag_config(pool: str, more: str = "") -> RunConfig:
    model = f"{{network: small_cnn, width: 4, pool: {pool}}}"
    return config_of(
        more, ", images_per_patient: 2", cohort=", images: {size: [16, 16]}", model=model
    )


@pytest.mark.parametrize("pool", POOLS)
def test_a_round_on_bags_is_that_of_a_plain_loop_over_patients(pool: str) -> None:
    """Each patient of a step has one loss, on up to images_per_patient of their pictures."""
    config, site = bag_config(pool), site_of(image=IMAGE)
    request = request_of(config)
    update = update_of(site, open_local_model(config, 0), request)
    network, rules = network_of(config, 0), config.training
    load_into(network, request.weights)
    task = open_local_model(config, 0).task
    parameters = dict(network.named_parameters())
    order = data_order(request.seed, site.name, request.round)
    for batch in batches(
        site.train, rules.batch_patients, rules.images_per_patient, rules.local_steps, order
    ):
        losses = []
        for patient in batch.patient.unique():
            own = batch.patient == patient
            output = network(batch.image[own], batch.table[own])
            assert output.shape == (1, 1)
            losses.append(task.item_loss(output, batch.target[own][:1]))
        gradients = torch.autograd.grad(torch.cat(losses).mean(), list(parameters.values()))
        rate = learning_rate(rules, request.round)
        with torch.no_grad():
            for value, gradient in zip(parameters.values(), gradients, strict=True):
                value.sub_(rate * gradient)
    moved = {n: v - request.weights[n] for n, v in copied(trainable(network)).items()}
    assert_close(update.delta, moved)
    assert any(float(v.abs().max()) > 1e-3 for v in moved.values())


@pytest.mark.parametrize("pool", POOLS)
def test_a_measurement_takes_all_pictures_of_a_patient_together(pool: str) -> None:
    config = bag_config(pool)
    local_model = open_local_model(config, 0)
    load_into(local_model.model, weights_of(config))
    patients = learnable(patients_of((1, 70, 3), IMAGE, 4))
    found = score(local_model, patients)
    assert found.owner is None
    for patient in range(3):
        items = patients.items_of(patient)
        with torch.no_grad():
            output: Tensor = local_model.model(patients.image[items], patients.table[items])
        expected = local_model.task.predict(output)[0]
        torch.testing.assert_close(found.prediction[patient], expected, rtol=1e-5, atol=1e-6)
    apart = score(local_model, patients, apart=True)
    assert torch.equal(apart.prediction, found.prediction)


def test_fine_tuning_goes_on_with_bags() -> None:
    config, site = bag_config("attention"), site_of(image=IMAGE)
    local_model, shared = open_local_model(config, 0), weights_of(config)
    rules = Personalisation(method="fine_tune", steps=5, learning_rate=0.01)
    tuned = fine_tune(site, local_model, shared, rules, 0)
    assert tuned.keys() == shared.keys()


def test_a_personal_head_leaves_attention_with_everybody() -> None:
    config = bag_config("attention", "personalisation: {method: personal_head}")
    kept = local_names(config, network_of(config, 0))
    assert kept == {"head.0.weight", "head.0.bias"}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("{network: table, pool: mean}", "table gives none"),
        ("{network: acme-nets/tiny, pool: mean}", r"model\.pool"),
    ],
)
def test_a_pool_without_pictures_of_a_patient_is_refused(model: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        config_of(model=model)


def test_outlines_take_no_pool() -> None:
    text = """{name: a, task: {kind: segmentation}, cohort: {images: {size: [16, 16]}},
      model: {network: unet, pool: max}, training: {rounds: 1}, privacy: none}"""
    with pytest.raises(ConfigurationError, match="unet gives none of a picture; remove pool"):
        parse_config(text)


def test_a_private_model_that_pools_is_checked_too() -> None:
    text = """{name: a, task: {kind: diagnosis, target: ill}, cohort: {images: {size: [32, 32]}},
      model: {network: small_cnn}, training: {rounds: 1}, evaluation: {unit: image},
      privacy: {unit: patient, epsilon: 3, default_patients: 40,
                model: {network: frozen_features, pool: attention}}}"""
    with pytest.raises(ConfigurationError, match=r"evaluation\.unit=image"):
        parse_config(text)


def test_what_is_not_said_is_not_in_the_hash() -> None:
    without = config_of(cohort=", images: {size: [16, 16]}", model="{network: small_cnn}")
    assert "pool" not in without.canonical_json()
    assert without.fingerprint() != bag_config("mean").fingerprint()


def test_batches_hold_all_items_of_few_patients() -> None:
    site = site_of(image=IMAGE)
    drawn = next(batches(site.train, "all", 64, 1, torch.Generator()))
    assert isinstance(drawn, Batch)
    assert len(drawn.patient) == sum(ITEMS)
