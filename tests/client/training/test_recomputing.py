"""Networks that forget the insides of their blocks: the same gradients, less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from client.privacy.gradient_backend import backend_of
from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import LOOP, Objective, gradients_by_patient
from client.privacy.patient_sampling import draw
from client.training.local_model import LocalModel, open_local_model
from client.training.recomputing import recompute
from common.config.run_config import RunConfig, parse_config
from common.data.weights import fingerprint, trainable
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError
from tests.client.local_runs import config_of as local_config_of
from tests.client.local_runs import request_of, site_of, update_of
from tests.common.config.test_config import IMAGES, refusal
from tests.privacy.made_up import Silence, TableNet, patients_of, plan_of, with_images

DIAGNOSIS, OUTLINES = "{kind: diagnosis, target: y}", "{kind: segmentation}"


def config_of(network: str, *, checkpoint: bool, more: str = "") -> RunConfig:
    outlines = network in {"unet", "segresnet", "dynunet", "swin_unetr"}
    width = {"swin_unetr": 12}.get(network, 8)
    return parse_config(f"""
name: forgets
task: {OUTLINES if outlines else DIAGNOSIS}
cohort: {{images: {{size: [32, 32]}}, smallest_cohort: 1}}
model: {{network: {network}, width: {width}, checkpoint: {str(checkpoint).lower()}{more}}}
training: {{rounds: 1, optimizer: sgd}}
privacy: none
""")


def gradients(local_model: LocalModel) -> list[Tensor]:
    image = torch.rand((2, 1, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        output = local_model.model(image, torch.zeros(2, 0))
        trained = [p for p in local_model.model.parameters() if p.requires_grad]
        return list(torch.autograd.grad(output.square().mean(), trained, materialize_grads=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        "small_cnn", "resnet18", "resnet50", "densenet121", "efficientnet_b0", "vit", "unet",
        "segresnet", "dynunet", "swin_unetr",
    ],
)  # fmt: skip
def test_every_network_of_ours_has_the_same_gradients(network: str) -> None:
    plain, saving = (
        open_local_model(config_of(network, checkpoint=given), 0) for given in (False, True)
    )
    kept = [module for module in saving.model.modules() if type(module).__name__ == "Recomputed"]
    assert len(kept) >= 4
    assert trainable(plain.model).keys() == trainable(saving.model).keys()
    for found, expected in zip(gradients(saving), gradients(plain), strict=True):
        scale = float(expected.abs().max())
        assert float((found - expected).abs().max()) <= 1e-6 * max(scale, 1e-3)


@pytest.mark.parametrize("more", ["", ", deep_supervision: true"])
def test_dropout_draws_the_same_again(more: str) -> None:
    given = ", dropout: 0.5" + more
    plain, saving = (
        open_local_model(config_of("dynunet", checkpoint=c, more=given), 0) for c in (False, True)
    )
    for found, expected in zip(gradients(saving), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_block_keeps_what_enters_it_and_nothing_else() -> None:
    held = []
    for checkpoint in (False, True):
        saved: list[int] = []

        def note(value: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(value.numel())
            return value

        local_model = open_local_model(config_of("unet", checkpoint=checkpoint), 0)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            local_model.model(torch.rand(1, 1, 32, 32), torch.zeros(1, 0))
        held.append(sum(saved))
    assert held[1] < 0.5 * held[0]


@pytest.mark.parametrize("training", ["", ", precision: bf16"])
def test_a_round_ends_in_the_same_bits(training: str) -> None:
    found = []
    for checkpoint in ("false", "true"):
        config = local_config_of(
            training=training,
            cohort=", images: {size: [16, 16]}",
            model=f"{{network: small_cnn, width: 4, dropout: 0.3, checkpoint: {checkpoint}}}",
        )
        site, local_model = site_of(image=(1, 16, 16)), open_local_model(config, 0)
        found.append(fingerprint(update_of(site, local_model, request_of(config)).delta))
    assert found[0] == found[1]


def test_gradients_by_patient_are_the_same_and_one_after_another() -> None:
    patients = patients_of((2, 1, 3), image=(1, 32, 32))
    patients = with_images(patients, patients.image, patients.table[:, :0])
    found = []
    for checkpoint in (False, True):
        local_model = open_local_model(config_of("small_cnn", checkpoint=checkpoint), 0)
        objective = Objective(
            model=local_model.model,
            item_loss=local_model.item_loss,
            patients=patients,
            images_per_patient=4,
            apart=checkpoint,
        )
        parameters = list(local_model.model.parameters())
        drawn = draw(patients, 1.0, 4, Silence())
        every = gradients_by_patient(objective, parameters, drawn, LOOP)
        found.append([torch.cat([part.flatten() for part in one]) for one in every])
        assert (backend_of(objective, parameters, simulated=True) == LOOP) is checkpoint
        check_model(objective, plan_of(), Silence())
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_bundles_network_is_the_plain_one() -> None:
    network = network_of(config_of("small_cnn", checkpoint=True), 0)
    assert not [m for m in network.modules() if type(m).__name__ == "Recomputed"]


@pytest.mark.parametrize(
    ("old", "said"), [("network: small_cnn", "acme/net"), ("network: small_cnn", "frozen_features")]
)
def test_what_has_no_blocks_of_ours_is_refused(old: str, said: str) -> None:
    found = refusal(IMAGES.replace(old, f"network: {said}, checkpoint: true"))
    assert "checkpoint" in found
    assert said in found
    with pytest.raises(ConfigurationError, match="TableNet has none that are known"):
        recompute(TableNet())
    assert "checkpoint" not in config_of("small_cnn", checkpoint=False).canonical_json()
