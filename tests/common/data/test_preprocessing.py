from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from common.config.run_config import Images
from common.data.augmentation import augment
from common.data.preprocessing import prepare, prepare_labels
from common.data.resampling import pad_or_crop, resize

SHAPES_2D = st.tuples(st.integers(2, 40), st.integers(2, 40))
SHAPES_3D = st.tuples(*[st.integers(2, 14)] * 3)
FITS = st.sampled_from(["letterbox", "stretch", "crop"])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


@given(shape=st.one_of(SHAPES_2D, SHAPES_3D), fit=FITS)
def test_whatever_the_shape_the_network_gets_its_size(
    shape: tuple[int, ...], fit: Literal["letterbox", "stretch", "crop"]
) -> None:
    size = (9, 12) if len(shape) == 2 else (5, 9, 12)
    rules = Images(size=size, fit=fit)
    found = prepare(noise(*shape), None, rules)
    labels = prepare_labels(np.ones(shape, np.uint8), None, rules)
    assert found.shape == (1, *size)
    assert labels.shape == size
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert 0 <= found.min() <= found.max() <= 1


@given(shape=st.one_of(SHAPES_2D, SHAPES_3D), fit=FITS)
def test_labels_stay_where_their_pixels_are(
    shape: tuple[int, ...], fit: Literal["letterbox", "stretch", "crop"]
) -> None:
    """Every label of the grid is one of the image's, and the padding is background."""
    size = (9, 12) if len(shape) == 2 else (5, 9, 12)
    rules = Images(size=size, fit=fit, intensity="window", window=(0, 1))
    image = prepare(np.ones(shape, np.float32), None, rules)[0]
    labels = prepare_labels(np.full(shape, 3, np.uint8), None, rules)
    assert set(labels.unique().tolist()) <= {0, 3}
    assert torch.equal(labels == 3, image > 0.5)


def test_letterbox_keeps_the_shape_and_centres_it() -> None:
    found = prepare(
        np.ones((20, 10), np.float32),
        None,
        Images(size=(40, 40), intensity="window", window=(0, 1)),
    )
    assert (found[0, :, 10:30] == 1).all()
    assert found.sum() == 40 * 20


def test_shrinking_smooths_in_every_direction() -> None:
    """A pattern finer than the new grid fades to its mean and makes no false stripes."""
    fine = (np.indices((32, 32, 32)).sum(0) % 2).astype(np.float32)
    for axes in (2, 3):
        values = torch.from_numpy(fine[0] if axes == 2 else fine)[None]
        found = resize(values, (8,) * axes, nearest=False)
        inner = found[(slice(None), *[slice(1, -1)] * axes)]
        assert (inner - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stripes_along_any_axis_of_a_volume_fade(axis: int) -> None:
    stripes = (np.indices((32, 32, 32))[axis] % 2).astype(np.float32)
    found = resize(torch.from_numpy(stripes)[None], (11, 11, 11), nearest=False)
    assert (found[:, 1:-1, 1:-1, 1:-1] - 0.5).abs().max() < 0.1


@given(shape=SHAPES_3D)
def test_growing_in_3d_is_trilinear(shape: tuple[int, int, int]) -> None:
    values = torch.from_numpy(noise(2, *shape))
    wanted = (shape[0] + 3, shape[1] + 1, shape[2] * 2)
    expected = F.interpolate(values[None], wanted, mode="trilinear")[0]
    assert torch.allclose(resize(values, wanted, nearest=False), expected, atol=1e-5)


def test_volumes_are_brought_to_one_spacing_before_they_are_cut() -> None:
    values = np.zeros((10, 20, 20), np.float32)
    values[:, 10:, :] = 1
    rules = Images(
        size=(20, 20, 20), fit="crop", spacing=(1.0, 2.0, 1.0), intensity="window", window=(0, 1)
    )
    found = prepare(values, (2.0, 1.0, 1.0), rules)[0]
    assert found.shape == (20, 20, 20)
    assert (found[:, :5] == 0).all()  # 10 rows of 2 mm in the middle of 20
    assert (found[:, 10:15] > 0.4).all()
    assert (found[:, 15:] == 0).all()


def test_a_spacing_that_would_fill_the_memory_is_refused() -> None:
    rules = Images(size=(8, 8, 8), spacing=(0.001, 0.001, 0.001))
    with pytest.raises(ValueError, match="Expected at most"):
        prepare(noise(8, 8, 8), (5.0, 1.0, 1.0), rules)


def test_colour_becomes_luminance_or_stays_and_grey_is_repeated() -> None:
    red = np.zeros((4, 4, 3), np.float32)
    red[..., 0] = 1
    window = {"intensity": "window", "window": (0, 1), "size": (4, 4)}
    grey = prepare(red, None, Images.model_validate(window))
    assert torch.allclose(grey, torch.full((1, 4, 4), 0.299))
    color = prepare(red, None, Images.model_validate({**window, "channels": 3}))
    assert color[:, 0, 0].tolist() == [1, 0, 0]
    repeated = prepare(red[..., 0], None, Images.model_validate({**window, "channels": 3}))
    assert repeated.shape == (3, 4, 4)
    assert (repeated == 1).all()


@given(scale=st.floats(0.1, 100), offset=st.floats(-1000, 1000))
def test_percentile_and_zscore_do_not_see_a_scanners_scale(scale: float, offset: float) -> None:
    values = noise(16, 16)
    for intensity in ("percentile", "zscore"):
        rules = Images.model_validate({"size": (16, 16), "intensity": intensity})
        first = prepare(values, None, rules)
        second = prepare(values * np.float32(scale) + np.float32(offset), None, rules)
        assert torch.allclose(first, second, atol=2e-2)


def test_intensities_are_what_they_are_called() -> None:
    values = np.linspace(-100, 300, 401, dtype=np.float32)[None].repeat(4, 0)
    whole = {"size": (4, 401)}
    window = Images.model_validate({**whole, "intensity": "window", "window": (0, 200)})
    found = prepare(values, None, window)[0, 0]
    assert (found[100], found[200], found[0], found[400]) == (0, 0.5, 0, 1)
    percentile = prepare(values, None, Images.model_validate(whole))[0, 0]
    assert (percentile[4], percentile[396]) == (pytest.approx(0), pytest.approx(1))
    zscore = prepare(values, None, Images.model_validate({**whole, "intensity": "zscore"}))
    assert (zscore.mean().item(), zscore.std().item()) == (
        pytest.approx(0, abs=1e-5),
        pytest.approx(1, abs=1e-5),
    )


@given(shape=SHAPES_2D, wanted=SHAPES_2D)
def test_padding_and_cutting_keep_the_middle(
    shape: tuple[int, int], wanted: tuple[int, int]
) -> None:
    values = torch.from_numpy(noise(1, *shape)) + 1
    found = pad_or_crop(values, wanted)
    assert found.shape == (1, *wanted)
    back = pad_or_crop(found, shape)
    kept = back > 0
    assert torch.equal(back[kept], values[kept])
    assert kept.sum() == min(shape[0], wanted[0]) * min(shape[1], wanted[1])


@pytest.mark.parametrize("spatial", [(16, 20), (16, 17, 20)])
def test_masks_move_with_their_images(spatial: tuple[int, ...]) -> None:
    target = torch.randint(0, 3, (6, *spatial), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    image, moved = augment(target[:, None].float() * 100, target, generator, outlines=True)
    assert not torch.equal(moved, target)
    assert moved.dtype == target.dtype
    for item in range(6):
        levels = [image[item, 0][moved[item] == label] for label in range(3)]
        spreads = [float(level.max() - level.min()) for level in levels if len(level)]
        assert max(spreads) < 1e-3  # one intensity a label: nothing slipped


def test_augmentation_follows_the_generator_alone_and_leaves_the_global_one() -> None:
    image, target = torch.rand(4, 1, 32, 32), torch.zeros(4)
    before = torch.random.get_rng_state()
    first = augment(image, target, torch.Generator().manual_seed(5), outlines=False)
    second = augment(image, target, torch.Generator().manual_seed(5), outlines=False)
    other = augment(image, target, torch.Generator().manual_seed(6), outlines=False)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], other[0])
    assert first[1] is target
    assert torch.equal(before, torch.random.get_rng_state())


def test_items_of_a_batch_are_moved_each_in_its_own_way() -> None:
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).repeat(8, 1, 1, 1)
    target = image[:, 0]
    _, moved = augment(image, target, torch.Generator().manual_seed(2), outlines=True)
    assert len({tuple(item.flatten()[:64].tolist()) for item in moved}) > 4


def test_features_are_not_augmented() -> None:
    image, target = torch.rand(4, 7), torch.zeros(4)
    assert augment(image, target, torch.Generator(), outlines=False)[0] is image
