from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from client.training.blending import SHARES, blend, mixed
from client.training.evaluation import score
from client.training.local_model import LocalModel, open_local_model
from client.training.training_site import Site
from common.data.weights import Weights, add_scaled, load_into
from tests.client.local_runs import (
    config_of,
    copied,
    image_config_of,
    nobody,
    request_of,
    site_of,
    update_of,
    weights_of,
)
from tests.server.hospitals import same_bits


def pair(seed: int = 1) -> tuple[Weights, Weights]:
    """Return two models of two clinical numbers."""
    shared = weights_of(config_of())
    generator = torch.Generator().manual_seed(seed)
    own = {n: v + torch.randn(v.shape, generator=generator) for n, v in shared.items()}
    return copied(shared), own


def losses_of(site: Site, weights: Weights) -> list[float]:
    local_model = open_local_model(config_of(), 0)
    load_into(local_model.model, weights)
    return [float(loss) for loss in score(local_model, site.validation).loss]


def slowly(site: Site, shared: Weights, own: Weights) -> float:
    """Return the share of the own model, line by line."""
    likelihoods = []
    for share in SHARES:
        weights = {n: (1 - share) * v + share * own[n] for n, v in shared.items()}
        likelihoods.append(math.exp(-sum(losses_of(site, weights))))
    return sum(a * p for a, p in zip(SHARES, likelihoods, strict=True)) / sum(likelihoods)


@pytest.mark.parametrize("seed", range(4))
def test_the_share_is_the_mean_under_the_likelihood_of_the_validation_patients(seed: int) -> None:
    site, (shared, own) = site_of(), pair(seed)
    found = blend(site, open_local_model(config_of(), 0), shared, own)
    expected = mixed(shared, own, slowly(site, shared, own))
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-6)


def test_a_model_that_fails_on_a_patient_has_no_share() -> None:
    site, (shared, own) = site_of(), pair()
    broken = {name: torch.full_like(value, torch.nan) for name, value in own.items()}
    found = blend(site, open_local_model(config_of(), 0), shared, broken)
    assert same_bits(found, shared)


def test_without_validation_patients_the_shared_model_is_returned() -> None:
    site, (shared, own) = replace(site_of(), validation=nobody()), pair()
    assert same_bits(blend(site, open_local_model(config_of(), 0), shared, own), shared)


def test_many_patients_move_the_mix_to_the_better_model() -> None:
    """No prior holds against the evidence: the worse model's share goes to nothing."""
    site, (shared, _) = site_of(), pair()
    harmful = {name: value - 40 * torch.ones_like(value) for name, value in shared.items()}
    local_model = open_local_model(config_of(), 0)
    assert sum(losses_of(site, harmful)) > sum(losses_of(site, shared)) + 50
    assert same_bits(blend(site, local_model, shared, harmful), shared)
    assert same_bits(blend(site, local_model, harmful, shared), shared)


def permuted(weights: Weights) -> Weights:
    """Return a network that computes the same with the channels between its levels reversed."""
    found = copied(weights)
    for level in range(3):
        for name in (f"{level}.0.weight", f"{level}.1.weight", f"{level}.1.bias"):
            found[f"body.levels.{name}"] = found[f"body.levels.{name}"].flip(0)
        inward = f"body.levels.{level + 1}.0.weight"
        found[inward] = found[inward].flip(1)
    return found


def test_where_a_mix_is_worse_than_what_it_is_the_mean_of_the_better_end_is_taken() -> None:
    """Deep weights need not lie in one valley: a permuted twin is as good, halfway is not."""
    config = image_config_of(training=", momentum: 0.9", dropout=0.0)
    local_model, site = open_local_model(config, 0), site_of(image=(1, 16, 16))
    site = replace(site, validation=site.train)
    good = weights_of(config)
    for number in range(1, 7):
        request = replace(request_of(config, number), weights=good)
        good = add_scaled(good, update_of(site, local_model, request).delta)
    twin = permuted(good)
    ends, middle = (_total(local_model, site, w) for w in (twin, mixed(good, twin, 0.5)))
    assert ends == pytest.approx(_total(local_model, site, good), rel=1e-3)
    assert middle > ends + 1
    found = blend(site, local_model, good, twin)
    assert same_bits(found, good) or same_bits(found, twin)


def _total(local_model: LocalModel, site: Site, weights: Weights) -> float:
    local_model.load(weights)
    return float(score(local_model, site.validation).loss.sum())
