from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import Objective
from client.training.local_model import open_local_model
from common.config.run_config import parse_config
from common.data.weights import load_weights
from common.models.deep_supervision import DeepSegmenter, is_deep_head
from common.models.fusion import Segmenter
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError
from tests.privacy.made_up import patients_of, plan_of
from tests.privacy.test_sensitivity import Silence

TEXT = """
name: deep
task: {kind: segmentation, structures: {lesion: [1]}}
cohort: {images: {size: SIZE, channels: 1}}
model: {network: dynunet, width: 4, deep_supervision: true}
training: {rounds: 1}
privacy: none
"""
FLAT = parse_config(TEXT.replace("SIZE", "[32, 32]"))
SOLID = parse_config(TEXT.replace("SIZE", "[16, 16, 16]"))


@pytest.mark.parametrize("config", [FLAT, SOLID], ids=["2-D", "3-D"])
def test_the_network_answers_as_it_would_without_the_heads(config: object) -> None:
    assert config in (FLAT, SOLID)
    run = FLAT if config is FLAT else SOLID
    network = network_of(run, 0)
    assert isinstance(network, DeepSegmenter)
    plain = Segmenter(network.body, network.head)
    size = run.cohort.images.size  # type: ignore[union-attr]
    image, table = torch.randn(2, 1, *size), torch.zeros(2, 0)
    three = network(image, table)
    assert three.shape == (2, 3, 2, *size)
    assert torch.equal(three[:, 0], plain(image, table))
    assert torch.equal(network.eval()(image, table), plain(image, table))


def test_the_loss_is_the_weighed_mean_of_three_by_item() -> None:
    local_model = open_local_model(FLAT, 0)
    output = torch.randn(3, 3, 2, 32, 32)
    target = torch.randint(0, 2, (3, 32, 32))
    own = [local_model.task.item_loss(output[:, k], target) for k in range(3)]
    expected = (4 * own[0] + 2 * own[1] + own[2]) / 7
    torch.testing.assert_close(local_model.item_loss(output, target), expected)
    assert torch.equal(local_model.item_loss(output[:, 0], target), own[0])


def test_every_head_is_trained_and_the_guard_of_private_runs_takes_it() -> None:
    local_model = open_local_model(FLAT, 0)
    image, target = torch.randn(1, 1, 32, 32), torch.randint(0, 2, (1, 32, 32))
    local_model.item_loss(local_model.model(image, torch.zeros(1, 0)), target).sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in local_model.model.parameters())
    patients = patients_of((1, 1), (1, 32, 32))
    outlined = Objective(
        model=local_model.model,
        item_loss=local_model.item_loss,
        patients=patients.__class__(
            image=patients.image,
            table=torch.zeros(2, 0),
            target=torch.zeros(2, 32, 32, dtype=torch.uint8),
            patient=patients.patient,
            pseudonyms=patients.pseudonyms,
        ),
        images_per_patient=1,
    )
    check_model(outlined, plan_of(), Silence())


def test_only_dynunet_has_such_heads() -> None:
    with pytest.raises(ConfigurationError, match="deep_supervision goes with network: dynunet"):
        parse_config(TEXT.replace("SIZE", "[32, 32]").replace("dynunet", "unet"))


@pytest.mark.slow
def test_a_bundle_holds_no_head_of_training(tmp_path: Path) -> None:
    from client.inference.trained_model import open_model
    from common.bundle.write import write_bundle
    from tests.common.bundle.test_bundle import CARD

    network = network_of(FLAT, 0)
    assert any(is_deep_head(name) for name, _ in network.named_parameters())
    write_bundle(tmp_path, network, FLAT, CARD)
    held = load_weights(tmp_path / "model.safetensors")
    assert held
    assert not any(is_deep_head(name) for name in held)
    model = open_model(tmp_path)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = network.eval()(image, torch.zeros(1, 0))
    assert torch.equal(model.deployed(image)[1], expected)
