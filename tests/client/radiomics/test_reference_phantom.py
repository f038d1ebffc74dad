"""Features against the digital phantom of IBSI's reference manual, and against slow twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from client.dicom.reasons import Reason
from client.radiomics.feature import Feature
from client.radiomics.measured import MeasuredStructure, MeasuredVolume, measured
from tests.client.measurement.phantom import MASK, STEP, VALUES

#: Reference values of the manual, of the phantom; all with strong or very strong consensus.
REFERENCE = {
    Feature.MESH_VOLUME: 556,
    Feature.VOLUME: 592,
    Feature.SURFACE: 388,
    Feature.SURFACE_TO_VOLUME: 0.698,
    Feature.COMPACTNESS_1: 0.0411,
    Feature.COMPACTNESS_2: 0.599,
    Feature.DISPROPORTION: 1.19,
    Feature.SPHERICITY: 0.843,
    Feature.ASPHERICITY: 0.186,
    Feature.DIAMETER: 13.1,
    Feature.MAJOR_AXIS: 11.4,
    Feature.MINOR_AXIS: 9.31,
    Feature.LEAST_AXIS: 8.54,
    Feature.ELONGATION: 0.816,
    Feature.FLATNESS: 0.749,
    Feature.MEAN: 2.15,
    Feature.VARIANCE: 3.05,
    Feature.SKEWNESS: 1.08,
    Feature.KURTOSIS: -0.355,
    Feature.MEDIAN: 1,
    Feature.MINIMUM: 1,
    Feature.PERCENTILE_10: 1,
    Feature.PERCENTILE_90: 4,
    Feature.MAXIMUM: 6,
    Feature.INTERQUARTILE_RANGE: 3,
    Feature.RANGE: 5,
    Feature.MEAN_ABSOLUTE_DEVIATION: 1.55,
}


def of(
    mask: NDArray[np.bool_],
    steps: NDArray[np.float64],
    values: NDArray[np.float32] | None = None,
    padding: NDArray[np.bool_] | None = None,
) -> MeasuredStructure:
    volume = MeasuredVolume(steps=steps, values=values, padding=padding, unit="1")
    return measured("part", mask, volume)


def test_the_phantom_measures_what_the_manual_says() -> None:
    found = of(MASK, np.eye(3) * STEP, VALUES).features
    for feature, expected in REFERENCE.items():
        assert found[feature] == pytest.approx(expected, rel=0.005), feature.name


def test_a_structure_measures_the_same_however_it_is_turned() -> None:
    mask = np.random.default_rng(3).random((5, 6, 7)) < 0.5
    expected = of(mask, np.diag([3.0, 1.0, 2.0])).features
    alike = set(expected) - {
        Feature.DIAMETER_IN_SLICE,
        Feature.DIAMETER_ACROSS_ROWS,
        Feature.DIAMETER_ACROSS_COLUMNS,
    }
    for axes in itertools.permutations(range(3)):
        turned = np.flip(mask.transpose(axes), 1)
        found = of(turned, np.diag(np.array([3.0, 1.0, 2.0])[list(axes)])).features
        assert {f: found[f] for f in alike} == pytest.approx({f: expected[f] for f in alike})


def test_a_cell_of_any_kind_is_closed() -> None:
    """Of each kind of cell alone: the surface is a body's, so what a shift adds is nothing."""
    for kind in range(1, 256):
        mask = np.array([bool(kind >> bit & 1) for bit in range(8)]).reshape(2, 2, 2)
        found = of(np.pad(mask, ((2, 3), (0, 1), (4, 0))), np.eye(3)).features
        assert found[Feature.MESH_VOLUME] == of(mask, np.eye(3)).features[Feature.MESH_VOLUME]
        assert 0 < found[Feature.MESH_VOLUME] <= mask.sum()


def corners(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the middle between each voxel inside and each neighbour outside."""
    found = []
    for place in np.argwhere(mask):
        for axis, side in itertools.product(range(mask.ndim), (-1, 1)):
            near = place.copy()
            near[axis] += side
            if not (0 <= near[axis] < mask.shape[axis] and mask[tuple(near)]):
                found.append((place + near) / 2)
    return np.array(found)


def widest(points: NDArray[np.float64]) -> float:
    return max(math.dist(one, other) for one, other in itertools.combinations(points, 2))


def test_diameters_are_those_of_all_pairs_of_corners() -> None:
    mask = np.random.default_rng(5).random((4, 5, 6)) < 0.3
    steps = np.array([[4.0, 0.0, 0.0], [1.5, 1.0, 0.0], [0.0, 0.0, 2.0]])  # sheared: gantry tilt
    found = of(mask, steps).features
    assert found[Feature.DIAMETER] == pytest.approx(widest(corners(mask) @ steps.T))
    for axis, feature in enumerate(
        (Feature.DIAMETER_IN_SLICE, Feature.DIAMETER_ACROSS_ROWS, Feature.DIAMETER_ACROSS_COLUMNS)
    ):
        across = np.delete(steps, axis, axis=1)
        planes = [p for p in np.moveaxis(mask, axis, 0) if p.any()]
        each = [widest(corners(plane) @ across.T) for plane in planes]
        assert found[feature] == pytest.approx(max(each)), feature.name


def test_a_sheared_volume_keeps_its_size() -> None:
    mask = np.ones((3, 4, 5), bool)
    straight, sheared = np.diag([4.0, 1.0, 2.0]), np.diag([4.0, 1.0, 2.0])
    sheared[1, 0] = 1.5
    for feature in (Feature.VOLUME, Feature.MESH_VOLUME):
        expected = of(mask, straight).features[feature]
        assert of(mask, sheared).features[feature] == pytest.approx(expected)


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((3, 3, 7), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 5] = True
    found = of(mask, np.eye(3)).features
    assert (found[Feature.PIECES], found[Feature.LARGEST_PIECE]) == (2, 2)


def test_one_voxel_has_a_size_and_no_axes() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    found = of(mask, np.diag([5.0, 1.0, 1.0]), np.full((3, 3, 3), 7.0, np.float32)).features
    assert found[Feature.VOLUME] == 5
    assert Feature.MAJOR_AXIS not in found
    assert (found[Feature.SKEWNESS], found[Feature.KURTOSIS]) == (0, 0)
    assert all(math.isfinite(value) for value in found.values())


def test_padding_is_no_grey_value() -> None:
    values = VALUES.copy()
    values[~MASK] = -2000
    found = of(np.ones_like(MASK), np.eye(3) * STEP, values, ~MASK)
    assert found.features[Feature.MEAN] == pytest.approx(2.15, rel=0.005)


def test_what_is_odd_is_said_and_measured_all_the_same() -> None:
    empty = of(np.zeros((3, 3, 3), bool), np.eye(3))
    assert [one.reason for one in empty.notices] == [Reason.MASK_EMPTY]
    assert dict(empty.features) == {Feature.VOLUME: 0}
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 2, :2] = True
    (border, coarse) = of(mask, np.diag([8.0, 1.0, 2.0])).notices
    assert (border.reason, border.detail) == (
        Reason.MASK_AT_BORDER,
        "part reaches the first or last column",
    )
    assert coarse.reason is Reason.COARSE_SLICES
    assert "8 mm apart" in coarse.detail
    mask[:, :, 0] = False
    assert of(mask, np.eye(3)).notices == ()
