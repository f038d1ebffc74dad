"""Named steps of augmentation: within their bounds, by image, label maps along with images."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from common.config.run_config import RunConfig, parse_config
from common.config.training import AugmentationStep
from common.data.named_augmentation import NamedSteps, named_steps
from common.platform.errors import ConfigurationError

_READ: TypeAdapter[tuple[AugmentationStep, ...]] = TypeAdapter(tuple[AugmentationStep, ...])
ALL: Sequence[dict[str, object]] = (
    {"name": "flip", "axes": ["rows", "columns"], "chance": 1.0},
    {"name": "rotate", "degrees": 20.0, "chance": 1.0},
    {"name": "zoom", "most": 0.2, "chance": 1.0},
    {"name": "shift", "most": 0.2, "chance": 1.0},
    {"name": "noise", "most": 0.3, "chance": 1.0},
    {"name": "blur", "most": 1.0, "chance": 1.0},
    {"name": "contrast", "most": 0.3, "chance": 1.0},
    {"name": "brightness", "most": 0.2, "chance": 1.0},
    {"name": "gamma", "range": [0.7, 1.5], "chance": 1.0},
)


def steps(*given: dict[str, object], size: Sequence[int] = (24, 24)) -> NamedSteps:
    return NamedSteps(_READ.validate_python(given), size)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("step", ALL, ids=lambda step: str(step["name"]))
@pytest.mark.parametrize("size", [(24, 24), (8, 24, 24)])
def test_a_step_changes_each_image_by_its_own_draw(
    step: dict[str, object], size: tuple[int, ...]
) -> None:
    change = steps(step, size=size)
    given = images(1, 1, *size).expand(3, 1, *size)
    target = (given[:, 0] > 0.7).to(torch.uint8)
    found, outlines = change(given, target, drawn(), outlines=True)
    assert found.shape == given.shape
    assert torch.isfinite(found).all()
    assert not torch.equal(found[0], given[0])
    assert set(outlines.unique().tolist()) <= {0, 1}
    assert outlines.dtype == torch.uint8
    again, _ = change(given, target, drawn(), outlines=True)
    assert torch.equal(found, again)
    # The first image is changed alike whatever comes after it.
    other = torch.cat([given[:1], 9 * given[1:]])
    beside, _ = change(other, target, drawn(), outlines=True)
    assert torch.equal(beside[0], found[0])
    state = torch.random.get_rng_state()
    change(given, target, drawn(), outlines=True)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["flip", "rotate", "zoom", "shift"])
def test_label_maps_move_with_their_images(name: str) -> None:
    (step,) = (step for step in ALL if step["name"] == name)
    image = torch.zeros(4, 1, 24, 24)
    image[:, :, 6:13, 9:20] = 1.0
    image[:, :, 6:9, 9:12] = 0.9  # no symmetry
    target = (image[:, 0] > 0).to(torch.uint8)
    found, moved = steps(step)(image, target, drawn(), outlines=True)
    overlap = ((found[:, 0] > 0.45) == (moved > 0)).float().mean()
    assert overlap > 0.97
    assert not torch.equal(moved, target)


@pytest.mark.parametrize("name", ["noise", "blur", "contrast", "brightness", "gamma"])
def test_grey_values_leave_label_maps_and_absent_channels_alone(name: str) -> None:
    (step,) = (step for step in ALL if step["name"] == name)
    image = images(3, 2, 24, 24)
    image[1, 1] = 0.0
    target = (image[:, 0] > 0.7).to(torch.uint8)
    found, same = steps(step)(image, target, drawn(), outlines=True)
    assert torch.equal(same, target)
    assert (found[1, 1] == 0).all()
    assert not torch.equal(found[1, 0], image[1, 0])


def test_steps_stay_within_their_bounds() -> None:
    given = images(1, 1, 24, 24).expand(40, 1, 24, 24)
    target = torch.zeros(40)
    bright, _ = steps({"name": "brightness", "most": 0.2, "chance": 1.0})(
        given, target, drawn(), outlines=False
    )
    offsets = (bright - given).flatten(1).mean(dim=1)
    assert float(offsets.abs().max()) <= 0.2 + 1e-6
    assert float(offsets.abs().max()) > 0.1
    marked = torch.zeros(40, 1, 24, 24)
    marked[:, :, 12, 12] = 1.0
    moved, _ = steps({"name": "shift", "most": 0.25, "chance": 1.0})(
        marked, target, drawn(), outlines=False
    )
    places = torch.stack([image[0].argmax() for image in moved])
    far = torch.stack([places // 24 - 12, places % 24 - 12]).abs()
    assert int(far.max()) <= 6
    assert int(far.max()) >= 4
    half, _ = steps({"name": "flip", "axes": ["columns"], "chance": 0.5})(
        given, target, drawn(), outlines=False
    )
    flipped = [torch.equal(one, given[0].flip(-1)) for one in half]
    assert 8 < sum(flipped) < 32


def run(augment: str, images: str = "size: [16, 16]", privacy: str = "none") -> RunConfig:
    return parse_config(
        f"name: a\ntask: {{kind: diagnosis, target: y}}\ncohort: {{images: {{{images}}}}}\n"
        f"model: {{network: small_cnn}}\ntraining: {{rounds: 1, augment: {augment}}}\n"
        f"privacy: {privacy}"
    )


def test_a_run_names_its_steps() -> None:
    assert named_steps(run("true")) is None
    assert named_steps(run("[]")) is None
    assert named_steps(run("[{name: noise, most: 0.1}]")) is not None


@pytest.mark.parametrize(
    ("augment", "images", "said"),
    [
        ("[{name: flop}]", "size: [16, 16]", "flip"),
        ("[{name: rotate}]", "size: [16, 16]", "degrees"),
        ("[{name: rotate, degrees: 200.0}]", "size: [16, 16]", "180"),
        ("[{name: gamma, range: [2.0, 1.0]}]", "size: [16, 16]", "low <= high"),
        ("[{name: flip, axes: [slices]}]", "size: [16, 16]", "2-D images have none"),
        ("[{name: flip, axes: [columns]}]", "size: [16, 16], laterality: L", "a right one"),
        ("true", "size: [16, 16], laterality: L", "a right one"),
    ],
)
def test_what_cannot_be_done_is_refused(augment: str, images: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        run(augment, images)


@pytest.mark.parametrize("augment", ["true", "[{name: noise, most: 0.1}]"])
@pytest.mark.parametrize("taken", ["frozen_features", "table"])
def test_what_has_no_image_when_it_is_trained_takes_none(augment: str, taken: str) -> None:
    cohort = {
        "frozen_features": "{images: {size: [32, 32]}}",
        "table": "{table: {numbers: [{column: age}]}}",
    }[taken]
    with pytest.raises(ConfigurationError, match=f"augment acts on images, which network: {taken}"):
        parse_config(
            f"name: a\ntask: {{kind: diagnosis, target: y}}\ncohort: {cohort}\n"
            f"model: {{network: {taken}}}\ntraining: {{rounds: 1, augment: {augment}}}\n"
            "privacy: none"
        )


def test_one_side_may_be_changed_otherwise() -> None:
    given = run(
        "[{name: flip, axes: [rows]}, {name: noise, most: 0.1}]", "size: [16, 16], laterality: L"
    )
    steps = given.training.augment
    assert isinstance(steps, tuple)
    assert [step.name for step in steps] == ["flip", "noise"]


def test_a_private_run_takes_none() -> None:
    with pytest.raises(ConfigurationError, match="a private run takes no augment"):
        run("[{name: noise, most: 0.1}]", privacy="{unit: patient, epsilon: 3.0}")
