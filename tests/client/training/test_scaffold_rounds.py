from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.training.local_model import open_local_model
from common.data.weights import Weights, zeros_like
from tests.client.local_runs import (
    assert_close,
    config_of,
    image_config_of,
    request_of,
    site_of,
    twin,
    update_of,
)
from tests.server.hospitals import same_bits

SCAFFOLD = "aggregation: {rule: scaffold}"
HEAD = "personalisation: {method: personal_head}"


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from(["", ", schedule: cosine", ", proximal: 0.3"]))
def test_the_control_of_a_site_is_its_mean_gradient_as_the_slow_twin_takes_it(
    seed: int, training: str
) -> None:
    config, site = config_of(SCAFFOLD, training), site_of()
    local_model, draw = open_local_model(config, 0), torch.Generator().manual_seed(seed)
    own: Weights = zeros_like(request_of(config).weights)
    for number in (1, 2, 4):  # the third is missed
        sent = {n: torch.randn(v.shape, generator=draw) for n, v in own.items()}
        request = request_of(config, number, control=sent)
        update = update_of(site, local_model, request)
        after, gradient = twin(site, config, request, own)
        assert_close(update.delta, {n: after[n] - v for n, v in request.weights.items()})
        assert update.control_delta is not None
        assert_close(update.control_delta, {n: gradient[n] - own[n] for n in own})
        own = {n: own[n] + update.control_delta[n] for n in own}


def test_the_first_round_of_scaffold_with_a_zero_control_is_that_of_the_mean() -> None:
    plain, scaffold = config_of(), config_of(SCAFFOLD)
    first = update_of(site_of(), open_local_model(plain, 0), request_of(plain))
    other = update_of(site_of(), open_local_model(scaffold, 0), request_of(scaffold))
    assert same_bits(first.delta, other.delta)
    assert first.control_delta is None


def test_layers_that_stay_at_a_site_have_no_control() -> None:
    config, site = image_config_of(f"{SCAFFOLD}\n{HEAD}"), site_of(image=(1, 16, 16))
    local_model = open_local_model(config, 0)
    update = update_of(site, local_model, request_of(config))
    assert update.control_delta is not None
    assert update.control_delta.keys() == update.delta.keys()
    kept = site.memory.recall("run", 1)
    assert local_model.local < kept.keys()
    assert not any(f"control/{name}" in kept for name in local_model.local)
