"""Channels in training and in what is exported: dropped by chance, absent ones said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.privacy.patient_gradients import LOOP, DrawnPatients, Objective, gradients_by_patient
from client.training.channel_drop import ChannelDrop
from client.training.local_model import open_local_model
from common.bundle.onnx import onnx_of
from common.bundle.preparation import Preparation
from common.bundle.words import channel_names
from common.config.run_config import RunConfig, parse_config
from common.data.preprocessing import prepare
from common.data.sample import Patients
from common.models.fusion import WithAbsence
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import CONFIG

SERIES = (
    "[{name: flair, reference: true, description: [flair]}, "
    "{name: t1, description: [t1], missing: zero}, {name: t2, description: [t2]}]"
)


def run(network: str = "small_cnn", more: str = "", size: str = "[16, 16, 16]") -> RunConfig:
    outlines = network == "unet"
    return parse_config(
        CONFIG.format(
            task="{kind: segmentation, mask: mask, structures: {a: [1]}}"
            if outlines
            else "{kind: diagnosis, target: ill}",
            network=network,
            cohort=f"{{images: {{size: {size}, series: {SERIES}{more}}}}}",
        )
    )


def test_channels_but_the_reference_are_dropped_by_chance_in_training_alone() -> None:
    drop, model = ChannelDrop(0.3, 3, 0), torch.nn.Identity()
    image, table = torch.ones(4000, 3, 2, 2), torch.zeros(4000, 1)
    torch.manual_seed(0)
    found = drop(model.train(), (image, table))
    assert found is not None
    kept = found[0].flatten(2).mean(2)  # (items, channels): 0 or 1
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert kept[:, 0].all()
    assert (kept.mean(0)[1:] - 0.7).abs().max() < 0.03
    both = ((kept[:, 1] == 0) & (kept[:, 2] == 0)).float().mean()
    assert abs(float(both) - 0.09) < 0.02  # each by itself
    assert drop(model.eval(), (image, table)) is None


@pytest.mark.parametrize(("more", "dropped"), [("", True), (", drop_channels: 0.0", False)])
def test_a_series_that_may_be_absent_is_dropped_unless_the_run_says_no(
    more: str, *, dropped: bool
) -> None:
    model = open_local_model(run("unet", more), 0).model
    image = torch.rand(8, 3, 16, 16, 16)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model.train()
        outputs = [model(image, torch.zeros(8, 0)) for _ in range(2)]
        assert torch.equal(*outputs) != dropped
        torch.manual_seed(1)
        assert torch.equal(model(image, torch.zeros(8, 0)), outputs[0])  # of torch's own draws
        model.eval()
        plain = network_of(run("unet", more), 0).eval()
        assert torch.equal(model(image, torch.zeros(8, 0)), plain(image, torch.zeros(8, 0)))


def test_a_classifier_is_told_what_is_absent_and_a_segmenter_sees_zeros() -> None:
    body = WithAbsence(torch.nn.Flatten(), (1,))
    image = torch.rand(2, 3, 2, 2)
    image[1, 1] = 0
    image[0, 2] = 0  # may not be absent, so nothing says it
    assert body(image)[:, -1].tolist() == [0.0, 1.0]
    assert body(image).shape == (2, 13)
    inside = [type(part) for part in network_of(run(), 0).modules()]
    assert WithAbsence in inside
    assert WithAbsence not in [type(part) for part in network_of(run("unet"), 0).modules()]


def test_what_is_exported_takes_the_channels_and_computes_the_same() -> None:
    assert onnx_of(network_of(run(), 0), run())  # which compares the two, for 1 and 3 items
    images = run().cohort.images
    assert images is not None
    assert channel_names(images) == ("flair", "t1", "t2")


@pytest.mark.parametrize(
    "more", ["", ", intensity: zscore", ", intensity: window, window: [-1, 3]"]
)
def test_the_preparation_of_a_bundle_is_that_of_the_sites(more: str) -> None:
    rules = run("unet", more).cohort.images
    assert rules is not None
    volume = torch.rand(3, 12, 20, 18) * torch.tensor([1.0, 5, 900]).reshape(3, 1, 1, 1)
    volume[1] = 0  # absent
    spacing = (3.0, 1.0, 1.0)
    one = rules.model_copy(update={"series": ()})
    expected = [prepare(channel.numpy(), spacing, one) for channel in volume]
    expected[1] = torch.zeros_like(expected[1])
    scripted = torch.jit.script(Preparation(rules).eval())
    found = scripted(volume.permute(0, 3, 2, 1), list(spacing[::-1]))
    assert float((found - torch.cat(expected)).abs().max()) < 1e-5
    with pytest.raises(torch.jit.Error, match="one channel for each series"):
        scripted(volume[:2].permute(0, 3, 2, 1), list(spacing[::-1]))


def test_frozen_features_take_one_series() -> None:
    with pytest.raises(ConfigurationError, match="frozen_features takes one series"):
        run("frozen_features", size="[16, 16]")


def test_the_shipped_configuration_is_what_was_measured() -> None:
    from common.config.run_config import load_config

    config = load_config(Path("configs/simulations/glioma-mr.yaml"))
    images = config.cohort.images
    assert images is not None
    assert images.channel_names == ("flair", "t1", "t1ce")
    assert images.channel_drop == 0.3


def test_a_patients_gradient_is_its_own_also_where_channels_are_dropped() -> None:
    text = run(size="[8, 8, 8]").to_yaml()
    private = text.replace("privacy: none", "privacy: {unit: patient, epsilon: 8, delta: 1.0e-5}")
    local = open_local_model(parse_config(private), 0)
    images = torch.rand(4, 3, 8, 8, 8)

    def gradients(image: torch.Tensor) -> list[list[torch.Tensor]]:
        patients = Patients(
            image=image,
            table=torch.zeros(4, 0),
            target=torch.ones(4, 1),
            patient=torch.arange(4),
            pseudonyms=("a", "b", "c", "d"),
        )
        objective = Objective(
            model=local.model, item_loss=local.item_loss, patients=patients, images_per_patient=1
        )
        drawn = DrawnPatients(
            place=torch.arange(4)[:, None], items=torch.ones(4, dtype=torch.int64)
        )
        trained = [p for p in local.model.parameters() if p.requires_grad]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            found = gradients_by_patient(objective, trained, drawn, LOOP)
            return [[one.clone() for one in several] for several in found]

    alone, beside = gradients(images), gradients(torch.cat([images[:1], images[1:] * 9]))
    assert all(map(torch.equal, alone[0], beside[0]))
    assert not all(map(torch.equal, alone[1], beside[1]))
