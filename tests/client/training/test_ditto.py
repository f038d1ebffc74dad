"""Ditto: each site's own model, pulled towards the shared one, which stays as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.training.batches import batches
from client.training.kept_between_rounds import MemoryInFolder
from client.training.local_model import open_local_model
from client.training.personal_models import own_beside_shared
from client.training.training_site import data_order
from common.algorithms.ditto import kept_personal, personal_weights
from common.config.run_config import RunConfig
from common.data.sample import patient_loss
from common.data.weights import Weights, fingerprint, load_into
from common.messages.wire import EvaluationRequest
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError
from common.tasks import task_of
from tests.client.local_runs import (
    assert_close,
    config_of,
    copied,
    image_config_of,
    request_of,
    site_of,
    update_of,
    weights_of,
)


def ditto(pull: float | None = 0.5, training: str = "") -> RunConfig:
    return config_of(
        "personalisation: {method: ditto%s}" % ("" if pull is None else f", pull: {pull}"), training
    )


def twin(config: RunConfig, own: Weights, shared: Weights, pull: float) -> dict[str, torch.Tensor]:
    """Return a site's own model after a round, line by line of the paper's algorithm 1."""
    network, task, rules = network_of(config, 0), task_of(config.task), config.training
    load_into(network, own)
    named = dict(network.named_parameters())
    for batch in batches(
        site_of().train,
        rules.batch_patients,
        rules.images_per_patient,
        rules.local_steps,
        data_order(0, "here", 1),
    ):
        output = network(batch.image, batch.table)
        loss = patient_loss(task.item_loss(output, batch.target), batch)
        distance = sum((named[n] - shared[n]).square().sum() for n in shared)
        gradients = torch.autograd.grad(loss + pull / 2 * distance, list(named.values()))
        with torch.no_grad():
            for value, gradient in zip(named.values(), gradients, strict=True):
                value.sub_(rules.learning_rate * gradient)
    return {name: value.detach() for name, value in named.items()}


@pytest.mark.parametrize("pull", [0.01, 0.5, 3.0])
def test_the_own_model_takes_the_papers_steps(pull: float) -> None:
    config, site = ditto(pull), site_of()
    shared = weights_of(config)
    own = {name: value + 0.3 for name, value in shared.items()}
    site.memory.keep("run", 0, kept_personal(own))
    update_of(site, open_local_model(config, 0), request_of(config))
    found = personal_weights(site.memory.recall("run", 1))
    assert_close(found, twin(config, own, shared, pull))


def test_it_begins_from_the_first_shared_weights_and_goes_on_from_itself() -> None:
    config, site = ditto(), site_of()
    local_model = open_local_model(config, 0)
    shared = weights_of(config)
    update_of(site, local_model, request_of(config))
    first = copied(personal_weights(site.memory.recall("run", 1)))
    assert_close(first, twin(config, shared, shared, 0.5))
    later = replace(request_of(config, 2), weights={n: v + 1.0 for n, v in shared.items()})
    update_of(site, local_model, later)
    second = personal_weights(site.memory.recall("run", 2))
    assert fingerprint(first) != fingerprint(second)
    update_of(site, local_model, later)  # the round again
    assert fingerprint(personal_weights(site.memory.recall("run", 2))) == fingerprint(second)


def test_a_stronger_pull_keeps_it_nearer_to_the_shared_model() -> None:
    distances = []
    for pull in (None, 2.0, 9.0):
        config, site = ditto(pull), site_of()
        update_of(site, open_local_model(config, 0), request_of(config))
        own, shared = personal_weights(site.memory.recall("run", 1)), weights_of(config)
        distances.append(sum(float((own[n] - shared[n]).square().sum()) for n in shared))
    assert distances == sorted(distances, reverse=True)


@pytest.mark.parametrize("more", ["", "aggregation: {rule: scaffold}"])
def test_nothing_of_the_own_model_leaves(more: str) -> None:
    """What a site sends is to the bit what it sends without."""
    sent = []
    for method in ("none", "ditto"):
        config = image_config_of(
            f"personalisation: {{method: {method}}}\n{more}", ", optimizer: sgd"
        )
        site, local_model = site_of(image=(1, 16, 16)), open_local_model(config, 0)
        sent += [update_of(site, local_model, request_of(config, number)) for number in (1, 2)]
    for plain, beside in zip(sent[:2], sent[2:], strict=True):
        assert fingerprint(plain.delta) == fingerprint(beside.delta)
        assert (plain.control_delta is None) == (beside.control_delta is None)
        if plain.control_delta and beside.control_delta:
            assert fingerprint(plain.control_delta) == fingerprint(beside.control_delta)
        assert plain == replace(beside, delta=plain.delta, control_delta=plain.control_delta)


def test_the_own_model_is_measured_for_the_site_alone(tmp_path: Path) -> None:
    config = ditto()
    site, local_model = site_of(memory=MemoryInFolder(tmp_path)), open_local_model(config, 0)
    asked = EvaluationRequest(
        run="run", round=1, seed=0, config=config, weights=weights_of(config), split="test"
    )
    assert own_beside_shared(site, local_model, asked) is None  # before it trained one
    update_of(site, local_model, request_of(config))
    said = own_beside_shared(site, local_model, asked)
    assert said is not None
    assert "with this site's own model" in said


def test_private_runs_train_no_model_beside() -> None:
    """It would learn without noise from patients whom the run hides."""
    content = ditto().model_dump(mode="json")
    content["privacy"] = {"unit": "patient", "epsilon": 2.0, "default_patients": 20}
    private = RunConfig.model_validate(content).in_force()
    assert private.personalisation.method == "none"
    assert private.personalisation.pull is None


def test_a_pull_goes_with_ditto() -> None:
    with pytest.raises(ConfigurationError, match=r"pull=0\.5 goes with method: ditto"):
        config_of("personalisation: {method: fine_tune, pull: 0.5}")
    assert "pull" not in config_of("personalisation: {method: fine_tune}").canonical_json()
