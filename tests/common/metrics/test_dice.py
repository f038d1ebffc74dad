from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot

from common.metrics.dice import dice_by_item, false_alarms
from common.metrics.surface_distance import distances_by_item

STRUCTURES = 2


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return label maps of 0 to 2 with smooth borders; some lack a structure."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    maps = np.zeros((4, *shape), np.uint8)
    for item in range(4):
        for structure in (1, 2):
            center = [rng.uniform(0.2 * n, 0.8 * n) for n in shape]
            away = sum((a - c) ** 2 for a, c in zip(axes, center, strict=True))
            maps[item][away < rng.uniform(1, 0.3 * min(shape)) ** 2] = structure
    maps[3][maps[3] == 2] = 0
    return maps


def channels(labels: np.ndarray) -> torch.Tensor:
    return one_hot(torch.from_numpy(labels.astype(np.int64))[:, None], STRUCTURES + 1)


@pytest.mark.parametrize("shape", [(32, 40), (12, 16, 20)])
def test_dice_is_that_of_monai(shape: tuple[int, ...]) -> None:
    predicted, truth = blobs(shape, 1), blobs(shape, 2)
    expected = compute_dice(channels(predicted), channels(truth), include_background=False)
    found = dice_by_item(predicted, truth, STRUCTURES)
    np.testing.assert_allclose(found[:, :2], expected.numpy(), rtol=1e-6)
    both = compute_dice(*(torch.from_numpy(m > 0)[:, None].float() for m in (predicted, truth)))
    np.testing.assert_allclose(found[:, 2], both[:, 0].numpy(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*")  # MONAI's own, about empty structures
@pytest.mark.parametrize(
    ("shape", "spacing"), [((32, 40), (1.0, 1.0)), ((12, 16, 20), (3.0, 0.8, 0.9))]
)
def test_distances_are_those_of_monai(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    predicted, truth = blobs(shape, 3), blobs(shape, 4)
    found = distances_by_item(predicted, truth, STRUCTURES, spacing)
    ours, theirs = channels(predicted), channels(truth)
    mean = compute_average_surface_distance(ours, theirs, symmetric=True, spacing=list(spacing))
    far = compute_hausdorff_distance(ours, theirs, percentile=95, spacing=list(spacing))
    for k, expected in enumerate((mean, far)):
        known = np.isfinite(expected.numpy())
        np.testing.assert_allclose(found[:, :2, k][known], expected.numpy()[known], rtol=1e-5)
        assert np.isnan(found[3, 1, k])


def test_distances_of_two_squares_by_hand() -> None:
    truth, predicted = np.zeros((1, 9, 9), np.uint8), np.zeros((1, 9, 9), np.uint8)
    truth[0, 2:5, 2:5], predicted[0, 2:5, 4:7] = 1, 1
    found = distances_by_item(predicted, truth, 1, (1.0, 1.0))
    # Eight border voxels each: of 2 or 1 voxels away, and 0 where they cross.
    by_hand = []
    edge = [(r, c) for r in range(3) for c in range(3) if (r, c) != (1, 1)]
    for a, b in ((2, 4), (4, 2)):
        for r, c in edge:
            by_hand.append(min(np.hypot(r - y, c + a - x - b) for y, x in edge))
    assert found[0, 0, 0] == pytest.approx(np.mean(by_hand))
    assert found[0, 0].tolist() == found[0, 1].tolist()


def test_two_equal_outlines_are_at_no_distance_and_overlap_whole() -> None:
    maps = blobs((32, 40), 5)
    assert np.nanmax(distances_by_item(maps, maps, 2, (1.0, 1.0))) == 0
    assert np.nanmin(dice_by_item(maps, maps, 2)) == 1


def test_an_empty_truth_says_nothing_of_overlap_and_is_a_false_alarm_or_none() -> None:
    truth = np.zeros((3, 8, 8), np.uint8)
    truth[2, 1:4, 1:4] = 1
    predicted = np.zeros_like(truth)
    predicted[1, 5, 5] = 1
    dice = dice_by_item(predicted, truth, 1)
    assert np.isnan(dice[:2]).all()
    assert dice[2].tolist() == [0, 0]
    np.testing.assert_array_equal(false_alarms(predicted, truth), [0, 1, np.nan])
    assert np.isnan(distances_by_item(predicted, truth, 1, (1.0, 1.0))).all()
