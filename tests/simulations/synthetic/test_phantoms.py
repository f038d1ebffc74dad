"""Phantoms show their lesions where the masks say, in the contrast of their modality."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.synthetic.phantoms import Anatomy, Lesion, Pose, body, chest, texture
from simulations.synthetic.scanners import Scanner, smooth, take_ct, take_xray

ANATOMY = Anatomy(width=1.0, lungs=1.0, heart=1.0, ribs=0.3, density=1.0)
STILL = Pose(right=0.0, down=0.0, zoom=1.0)


def lesion(*, radius: float = 0.07, irregularity: float = 0.0, across: float = 0.0) -> Lesion:
    """Return a clear lesion in the middle of the right lung or of the liver."""
    return Lesion(
        left=True,
        across=across,
        along=0.0,
        depth=0.5,
        radius=radius,
        irregularity=irregularity,
        sharpness=0.95,
        contrast=0.4,
        phases=(0.0, 1.0, 2.0),
    )


def rng() -> np.random.Generator:
    """Return the same numbers every time."""
    return np.random.default_rng(3)


def test_a_lesion_is_added_inside_its_mask_and_nowhere_else() -> None:
    without, empty = chest(96, ANATOMY, (), STILL, rng())
    picture, mask = chest(96, ANATOMY, (lesion(irregularity=0.8),), STILL, rng())
    assert not empty.any()
    assert np.array_equal(picture != without, mask > 0)
    assert (picture - without)[mask > 0].mean() > 0.05


def test_a_lesion_of_the_liver_is_darker_in_the_slices_that_it_reaches() -> None:
    shape, aspect = (16, 96, 96), 1.4
    without, _ = body(shape, aspect, ANATOMY, (), STILL, rng())
    volume, mask = body(shape, aspect, ANATOMY, (lesion(),), STILL, rng())
    assert np.array_equal(volume != without, mask > 0)
    assert (volume - without)[mask > 0].max() < 0
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    # A ball of radius 0.07 x 96 pixels, slices 1.4 pixels apart.
    assert len(held) == pytest.approx(2 * 0.07 * 96 / aspect, abs=1.5)
    assert held.mean() == pytest.approx(7.5)


@pytest.mark.parametrize("size", [64, 96, 200])
def test_the_mask_has_the_area_and_place_of_the_lesion(size: int) -> None:
    _, mask = chest(size, ANATOMY, (lesion(),), STILL, rng())
    assert mask.sum() == pytest.approx(np.pi * (0.07 * size) ** 2, rel=0.06)
    rows, columns = (axis.mean() + 0.5 for axis in np.nonzero(mask))
    assert rows / size == pytest.approx(0.5 - 0.06, abs=0.01)
    assert columns / size == pytest.approx(0.5 - 0.21, abs=0.01)


def test_the_mask_moves_with_the_patient() -> None:
    _, still = chest(96, ANATOMY, (lesion(),), STILL, rng())
    _, moved = chest(96, ANATOMY, (lesion(),), Pose(right=8 / 48, down=-4 / 48, zoom=1), rng())
    assert np.array_equal(np.roll(still, (-4, 8), (0, 1)), moved)


def test_tissue_has_the_densities_of_a_body() -> None:
    volume, _ = body((16, 96, 96), 1.4, ANATOMY, (), STILL, rng())
    assert volume[:, :4, :4].max() == -1000  # air around
    assert volume[:, 45, 30].mean() == pytest.approx(115, abs=15)  # liver
    assert volume[:, 64, 48].min() > 350  # vertebra
    chest_picture, _ = chest(96, ANATOMY, (), STILL, rng())
    assert chest_picture[20:50, 24:34].mean() < 0.5 < chest_picture[20:50, 46:50].mean()
    assert 0 <= chest_picture.min() < 0.2
    assert chest_picture.max() < 1


def test_pictures_are_single_precision() -> None:
    picture, _ = chest(64, ANATOMY, (lesion(),), STILL, rng())
    volume, _ = body((4, 64, 64), 1.0, ANATOMY, (lesion(),), STILL, rng())
    scanner = Scanner(gamma=1.2, blur=1)
    assert {
        a.dtype
        for a in (
            picture,
            volume,
            take_xray(picture, scanner, rng()),
            take_ct(volume, scanner, rng()),
        )
    } == {np.dtype(np.float32)}


def test_texture_is_smooth_and_as_strong_as_asked() -> None:
    mottle = texture((20, 96, 96), 1.0, rng())
    assert mottle.std() == pytest.approx(0.77, abs=0.1)  # interpolation takes some of it
    assert np.abs(np.diff(mottle, axis=-1)).max() < 1.2


def test_a_scanner_does_what_its_fields_say() -> None:
    flat = np.full((2, 96, 96), 0.5, np.float32)
    taken = take_xray(flat, Scanner(gain=0.8, offset=0.1, gamma=2, noise=0.05), rng())
    assert taken.mean() == pytest.approx(0.8 * 0.25 + 0.1, abs=0.002)
    assert taken.std() == pytest.approx(0.05, rel=0.05)
    ct = take_ct(flat * 80, Scanner(gain=1.1, offset=0.01, noise=0.04), rng())
    assert ct.mean() == pytest.approx(1.1 * 1040 - 1000 + 10, abs=1)
    assert ct.std() == pytest.approx(20, rel=0.05)
    assert take_xray(flat * 3, Scanner(), rng()).max() == 1


def test_blur_keeps_the_sum_and_spreads_a_point_as_the_kernel_says() -> None:
    point = np.zeros((9, 9), np.float32)
    point[4, 4] = 16
    kernel = np.outer([1, 2, 1], [1, 2, 1])
    assert np.array_equal(smooth(point, 1)[3:6, 3:6], kernel)
    assert smooth(point, 2).sum() == pytest.approx(16)
    assert np.array_equal(smooth(point, 0), point)
    edge = np.ones((5, 5), np.float32)
    assert np.array_equal(smooth(edge, 3), edge)
