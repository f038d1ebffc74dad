"""Heatmaps and attributions say what the network used, and add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from client.cohort.split import simulated_key
from client.inference.answer import Answered
from client.inference.explain import (
    GRAD_CAM,
    OCCLUSION,
    Aim,
    aim_of,
    attributions_of,
    explained,
    heatmap_of,
    usual_row,
)
from client.inference.grid import FrameOrigin
from client.inference.study_reading import Item
from client.inference.trained_model import score_study
from common.bundle.onnx import Deployed
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.models.run_network import network_of
from tests.client.dicom_files import SHARED, load
from tests.client.inference.test_inference_grid import place_of
from tests.client.small_models import head_on_features, model_of, stirred, trained

TABLE = (
    "table: {numbers: [{column: age}, {column: crp}], categories: [{column: sex, values: [f, m]}]}"
)


def run(task: str, cohort: str, network: str) -> RunConfig:
    return parse_config(
        f"{{name: try, task: {task}, cohort: {{{cohort}}}, model: {network},"
        "training: {rounds: 1}, privacy: none}"
    )


FROZEN = "{network: frozen_features}"
BINARY = "{kind: diagnosis, target: ill}"
CLASSES = "{kind: diagnosis, type: multiclass, target: kind, classes: [a, b, c]}"
SURVIVAL = "{kind: prognosis, event: died, time: t, intervals: [1, 2, 3]}"


def item_of(image: Tensor | None = None, table: Tensor | None = None) -> Item:
    place: FrameOrigin | None = None if image is None else place_of(tuple(image.shape[1:]))
    nothing = torch.zeros(0)
    return Item(
        image=nothing if image is None else image,
        table=nothing if table is None else table,
        place=place,
    )


def spots(config: RunConfig, items: int) -> tuple[Patients, Tensor]:
    """Return pictures of noise, half of them with a bright spot somewhere, and where it is."""
    generator = torch.Generator().manual_seed(0)
    images = config.cohort.images
    assert images is not None
    picture = 0.3 * torch.rand((items, 1, *images.size), generator=generator)
    where = torch.zeros((items, *images.size), dtype=torch.bool)
    for item in range(0, items, 2):
        corner = [int(torch.randint(0, n - 12, (), generator=generator)) for n in images.size]
        spot = (item, *(slice(c, c + 12) for c in corner))
        where[spot] = True
        picture[item, 0][where[item]] += 0.7
    target = (torch.arange(items) % 2 == 0).float()[:, None]
    return Patients(
        image=picture,
        table=torch.zeros(items, 0),
        target=target,
        patient=torch.arange(items),
        pseudonyms=tuple(map(str, range(items))),
    ), where


SPOTTED = run(BINARY, "images: {size: [64, 64]}", "{network: small_cnn, width: 8}")


@pytest.fixture(scope="module")
def seeing() -> tuple[nn.Module, Patients, Tensor]:
    patients, where = spots(SPOTTED, 60)
    return trained(SPOTTED, patients, steps=150), patients, where


def maps(network: nn.Module, patients: Patients, config: RunConfig = SPOTTED) -> list[np.ndarray]:
    """Return the heatmaps of the first pictures with a spot."""
    deployed = model_of(config, network).deployed
    aim = Aim(label="ill", place=0)
    found = []
    for k in range(0, 20, 2):
        values, method = heatmap_of(deployed, item_of(patients.image[k]), config, aim)
        assert method == GRAD_CAM
        assert 0 <= values.min() <= values.max() <= 1
        found.append(values.numpy())
    return found


def test_the_heatmap_is_bright_where_the_network_found_its_evidence(
    seeing: tuple[nn.Module, Patients, Tensor],
) -> None:
    network, patients, where = seeing
    with torch.no_grad():
        assert network(patients.image[:1], patients.table[:1]) > 1, "it sees the spot"
    spotted = where[0:20:2].numpy()
    found = list(zip(maps(network, patients), spotted, strict=True))
    inside, outside = ([m[s ^ out].mean() for m, s in found] for out in (False, True))
    assert np.mean(inside) > 2 * np.mean(outside)


def test_the_heatmap_follows_the_weights_and_not_the_picture_alone(
    seeing: tuple[nn.Module, Patients, Tensor],
) -> None:
    """The sanity check of Adebayo et al. 2018: with other weights there is another map."""
    network, patients, _ = seeing
    ours, theirs = maps(network, patients), maps(stirred(SPOTTED, seed=7), patients)
    alike = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] if b.any() else 0.0  # no evidence at all
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert np.mean(alike) < 0.5
    again = maps(network, patients)
    assert all(np.array_equal(a, b) for a, b in zip(ours, again, strict=True))


@pytest.mark.parametrize(
    ("network", "size", "method"),
    [
        ("{network: small_cnn, width: 4}", "[8, 16, 16]", GRAD_CAM),
        ("{network: frozen_features}", "[64, 48]", GRAD_CAM),
        ("{network: frozen_features, projection: 16}", "[64, 48]", GRAD_CAM),
        ("{network: vit}", "[32, 32]", OCCLUSION),
        pytest.param("{network: densenet121}", "[64, 64]", GRAD_CAM, marks=pytest.mark.slow),
        pytest.param("{network: resnet18}", "[64, 64]", GRAD_CAM, marks=pytest.mark.slow),
        pytest.param("{network: efficientnet_b0}", "[64, 64]", GRAD_CAM, marks=pytest.mark.slow),
    ],
)
def test_every_network_of_images_has_a_heatmap(network: str, size: str, method: str) -> None:
    config = run(BINARY, f"images: {{size: {size}}}", network)
    images = config.cohort.images
    assert images is not None
    image = torch.rand((1, *images.size), generator=torch.Generator().manual_seed(1))
    model = model_of(config, stirred(config, by=0.1))
    with torch.no_grad():
        output = model.deployed(image[None])[1]
    # One of the two signs has something that speaks for it.
    for sign in (1.0, -1.0):
        aim = _Signed(label="ill", place=0, sign=sign)
        values, found = heatmap_of(model.deployed, item_of(image), config, aim)
        assert found == method
        assert values.shape == images.size
        assert torch.isfinite(values).all()
        if values.max() > 0:
            break
    assert values.max() == pytest.approx(1)
    with torch.no_grad():
        assert torch.equal(output, model.deployed(image[None])[1]), "nothing was changed"


class _Signed(Aim):
    """The output, or its opposite."""

    def __init__(self, *, label: str, place: int, sign: float) -> None:
        super().__init__(label=label, place=place)
        object.__setattr__(self, "sign", sign)

    def of(self, output: Tensor) -> Tensor:
        sign: float = self.__dict__["sign"]
        return sign * super().of(output)


def test_occlusion_is_brightest_where_a_spot_that_counts_is_covered() -> None:
    config = run(BINARY, "images: {size: [32, 32]}", "{network: vit}")

    class Spot(nn.Module):
        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            del table
            return image[:, :, 20:26, 4:10].mean(dim=(1, 2, 3))[:, None]

    image = torch.zeros(1, 32, 32)
    image[0, 20:26, 4:10] = 1
    aim = Aim(label="ill", place=0)
    values, method = heatmap_of(model_of(config, Spot()).deployed, item_of(image), config, aim)
    assert method == OCCLUSION
    assert values[20:26, 4:10].mean() > 0.6
    assert values[:, 16:].max() < 0.05


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_for_malignant_ultrasound_the_heatmap_is_brighter_inside_the_lesion(tmp_path: Path) -> None:
    """On patients who were not trained on, at one site; the outlines were never shown to it."""
    config = run(BINARY.replace("ill", "malignant"), "images: {size: [160, 160]}", FROZEN)
    folder = SHARED / "breast-us" / "south"
    parts = load(folder, config, tmp_path).split(config.cohort.split, simulated_key(0), 0)
    model = model_of(config, head_on_features(config, parts["train"]))
    test = parts["test"]
    inside, outside = [], []
    for name, target in zip(test.pseudonyms, test.target, strict=True):
        if target != 1:
            continue
        (found,) = score_study([folder / f"{name}.dcm"], model)
        assert found.heatmap is not None
        with Image.open(folder / "masks" / f"{name}.png") as picture:
            lesion = np.asarray(picture.convert("L")) > 0
        assert found.heatmap.values.shape == lesion.shape
        inside.append(found.heatmap.values[lesion].mean())
        outside.append(found.heatmap.values[~lesion].mean())
    assert len(inside) >= 8
    assert np.mean(inside) > 1.3 * np.mean(outside)


# --- clinical columns ----------------------------------------------------------------------


@pytest.mark.parametrize("task", [BINARY, CLASSES, SURVIVAL])
@pytest.mark.parametrize("images", ["", "images: {size: [16, 16]}, "])
def test_attributions_add_up_to_what_the_values_changed(task: str, images: str) -> None:
    """Completeness (Sundararajan et al. 2017, proposition 1), of a network that is not linear."""
    network = (
        "{network: small_cnn, width: 4, hidden: [16]}"
        if images
        else ("{network: table, hidden: [16, 8]}")
    )
    config = run(task, f"{images}{TABLE}", network)
    table = config.cohort.table
    assert table is not None
    model = model_of(config, stirred(config, by=0.5))
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 16, 16, generator=generator) if images else None
    row = torch.tensor([1.3, -0.7, 0.0, 1.0, 0.0, 0.0, 0.0])
    item = item_of(image, row)
    with torch.no_grad():
        output = model.deployed(**item.inputs())[1]
        usual = model.deployed(**item_of(image, usual_row(row, table)).inputs())[1]
    aim = aim_of(config, output[0])
    found = attributions_of(model.deployed, [item], table, aim)
    assert [a.column for a in found] == ["age", "crp", "sex"]
    total = float((aim.of(output) - aim.of(usual))[0])
    assert abs(total) > 0.01
    assert sum(a.value for a in found) == pytest.approx(total, abs=0.01 * max(1, abs(total)))


def test_a_column_that_is_missing_is_given_nothing() -> None:
    config = run(BINARY, TABLE, "{network: table, hidden: [16]}")
    table = config.cohort.table
    assert table is not None
    model = model_of(config, stirred(config, by=0.5))
    row = torch.tensor([1.3, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0])  # crp and sex are missing
    found = attributions_of(model.deployed, [item_of(table=row)], table, Aim(label="ill", place=0))
    assert [a.value == 0 for a in found] == [False, True, True]


def test_of_a_linear_model_each_column_gets_its_own_product() -> None:
    config = run(BINARY, TABLE, "{network: table}")
    table = config.cohort.table
    assert table is not None
    network = stirred(config)
    row = torch.tensor([2.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    found = attributions_of(
        Deployed(network, config), [item_of(table=row)], table, Aim(label="ill", place=0)
    )
    weight = next(p for p in network.parameters() if p.shape == (1, 7))[0].detach()
    usual = torch.tensor([0.0, 0.0, 0.5, 0.5, 0.0, 1.0, 0.0])
    assert torch.equal(usual_row(row, table), usual)
    moved = weight * (row - usual)
    expected = [moved[0], 0.0, moved[2] + moved[3]]
    assert [a.value for a in found] == pytest.approx([float(v) for v in expected], abs=1e-4)


# --- which number, which image -------------------------------------------------------------


def test_what_is_explained_is_the_largest_class_or_the_risk() -> None:
    classes = run(CLASSES, TABLE, "{network: table}")
    assert aim_of(classes, torch.tensor([0.1, 0.3, -2.0])).label == "b"
    survival = run(SURVIVAL, TABLE, "{network: table}")
    aim = aim_of(survival, torch.zeros(3))
    assert aim.label == "risk of died"
    assert float(aim.of(torch.tensor([[1.0, 2.0, 3.0]]))) == 6
    outlines = run("{kind: segmentation}", "images: {size: [16, 16]}", "{network: unet, width: 4}")
    with pytest.raises(ValueError, match="no explanation"):
        aim_of(outlines, torch.zeros(2))


def test_the_heatmap_of_several_images_is_of_the_one_that_speaks_loudest(
    seeing: tuple[nn.Module, Patients, Tensor],
) -> None:
    network, patients, _ = seeing
    model = model_of(SPOTTED, network)
    items = tuple(item_of(patients.image[k]) for k in (1, 3, 2))  # only the last has a spot
    renamed = tuple(Item(image=i.image, table=i.table, place=place_of((64, 64))) for i in items)
    output = torch.cat([model.deployed(**i.inputs())[1] for i in renamed])
    found = explained(
        model.deployed,
        Answered(
            model=model.name,
            config=SPOTTED,
            items=renamed,
            output=output,
            sources=(),
            measured=renamed,
            together=output.mean(dim=0),
        ),
    )
    assert found.heatmap is not None
    assert found.attributions == ()
    chance = float(torch.sigmoid(output.mean()))
    assert found.heatmap.values.max() == pytest.approx(chance, abs=0.02), "as bright as it is sure"
    assert found.heatmap.label == "ill"


def test_explaining_leaves_no_hook_and_no_gradient_behind() -> None:
    config = run(BINARY, f"images: {{size: [16, 16]}}, {TABLE}", "{network: small_cnn, width: 4}")
    network = network_of(config, 0)
    model = model_of(config, network)
    item = item_of(torch.rand(1, 16, 16), torch.zeros(7))
    output = model.deployed(**item.inputs())[1]
    answered = Answered(
        model=model.name,
        config=config,
        items=(item,),
        output=output,
        sources=(),
        measured=(item,),
        together=output[0],
    )
    explained(model.deployed, answered)
    for layer in model.deployed.modules():
        assert not layer._forward_hooks
        assert not layer._backward_hooks
    assert all(p.grad is None for p in model.deployed.parameters())
