from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileDataset

from client.dicom.reading.read import Header, read_header, read_pixels
from client.dicom.reading.rescale import Pixels
from client.dicom.reading.volume import Geometry, order_slices, stack_slices, turn_of
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import image, noise, placed, slices

VOLUME = noise(6, 5, 4)


def stack(series: list[FileDataset]) -> tuple[Pixels, Geometry]:
    return stack_slices([(read_header(d), read_pixels(d)) for d in series])


def reason_of(series: list[FileDataset]) -> Reason:
    with pytest.raises(UnusableFile) as caught:
        stack(series)
    return caught.value.reason


def test_slices_are_ordered_by_position_whatever_the_order_of_files() -> None:
    series = slices(VOLUME)
    random.Random(0).shuffle(series)
    pixels, geometry = stack(series)
    assert np.array_equal(pixels.stored, VOLUME)
    assert geometry.spacing == (2.0, 0.5, 0.7)
    assert np.allclose(geometry.affine @ [3, 2, 1, 1], [0.7, 1.0, 6.0, 1])


def test_each_slice_keeps_its_own_line() -> None:
    series = slices(VOLUME)
    for number, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = str(number + 1), "-5"
    pixels, _ = stack(series[::-1])
    expected = VOLUME.astype(np.float32) * np.arange(1, 7).reshape(-1, 1, 1) - 5
    assert np.array_equal(pixels.patch((slice(None),)), expected)


def test_a_gantry_tilt_stays_in_the_affine() -> None:
    series = [
        placed(image(plane, number=n), (0, 0.4 * n, 1.5 * n)) for n, plane in enumerate(VOLUME)
    ]
    _, geometry = stack(series)
    assert np.allclose(geometry.affine[:3, 0], [0, 0.4, 1.5])
    assert geometry.spacing[0] == pytest.approx(1.5)


SIGNED_AXES = [
    tuple(float(v) for v in np.eye(3)[axis] * sign) for axis in range(3) for sign in (1, -1)
]
ORIENTATIONS = [(*a, *b) for a, b in itertools.product(SIGNED_AXES, repeat=2) if np.dot(a, b) == 0]


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_volumes_lie_alike_however_they_were_scanned(cosines: tuple[float, ...]) -> None:
    """A patient as a function of mm: every orientation gives the same picture and a true affine."""
    normal = np.cross(cosines[:3], cosines[3:])
    series = []
    for number in range(4):
        corner = number * 2.0 * normal
        rows = np.arange(5)[:, None, None] * np.array(cosines[3:]) * 0.5
        columns = np.arange(6)[None, :, None] * np.array(cosines[:3]) * 0.7
        where = corner + rows + columns
        values = (where @ [1, 10, 100] * 10 + 20000).round().astype(np.uint16)
        series.append(placed(image(values, number=number), corner, cosines))
    pixels, geometry = stack(series)
    shape = pixels.stored.shape
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    where = (index @ geometry.affine.T)[..., :3]
    assert np.allclose(pixels.stored, where @ [1, 10, 100] * 10 + 20000, atol=0.51)
    steps = geometry.affine[:3, :3]
    assert np.allclose(np.linalg.norm(steps, axis=0), geometry.spacing)
    slice_axis = int(np.abs(steps[:, 0]).argmax())
    down, right = {0: ((2, -1), (1, 1)), 1: ((2, -1), (0, 1)), 2: ((1, 1), (0, 1))}[slice_axis]
    assert steps[slice_axis, 0] > 0
    assert steps[down[0], 1] * down[1] > 0
    assert steps[right[0], 2] * right[1] > 0


@given(turned=st.lists(st.floats(-0.4, 0.4), min_size=3, max_size=3))
def test_an_oblique_plane_is_turned_like_the_nearest_straight_one(turned: list[float]) -> None:
    rows, columns = np.array([turned[0], 1, turned[1]]), np.array([1, -turned[0], turned[2]])
    turn = turn_of(rows / np.linalg.norm(rows), columns / np.linalg.norm(columns))
    assert (turn.transposed, turn.flipped) == (False, ())


def _drop(*places: int) -> Callable[[], list[FileDataset]]:
    return lambda: [d for n, d in enumerate(slices(VOLUME)) if n not in places]


def _moved(place: int, position: tuple[float, float, float]) -> Callable[[], list[FileDataset]]:
    def change() -> list[FileDataset]:
        series = slices(VOLUME)
        series[place].ImagePositionPatient = list(position)
        return series

    return change


def _changed(place: int, name: str, value: object) -> Callable[[], list[FileDataset]]:
    def change() -> list[FileDataset]:
        series = slices(VOLUME)
        setattr(series[place], name, value)
        return series

    return change


def _phases() -> list[FileDataset]:
    return slices(VOLUME) + slices(VOLUME)


def _another_size() -> list[FileDataset]:
    return [*slices(VOLUME)[:5], placed(image(noise(3, 3), number=9), (0, 0, 10.0))]


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (_drop(2), Reason.MISSING_SLICES),
        (_drop(1, 2), Reason.MISSING_SLICES),
        (_drop(0, 1, 2, 3, 4), Reason.TOO_FEW_SLICES),
        (_moved(3, (0, 0, 6.8)), Reason.NONUNIFORM_SPACING),
        (_moved(3, (5, 0, 6.0)), Reason.NONUNIFORM_SPACING),
        (_moved(3, (0, 0, 4.0)), Reason.DUP_POSITION),
        (_phases, Reason.MULTI_PHASE),
        (_changed(0, "ImageOrientationPatient", [0, 1, 0, 0, 0, 1]), Reason.MIXED_ORIENTATION),
        (_changed(0, "PixelSpacing", [0.6, 0.7]), Reason.MIXED_MATRIX),
        (_another_size, Reason.MIXED_MATRIX),
        (_changed(0, "ImagePositionPatient", None), Reason.NO_GEOMETRY),
        (_changed(0, "PixelSpacing", [0, 0.7]), Reason.NO_GEOMETRY),
    ],
)
def test_a_series_that_is_no_volume_says_why(
    series: Callable[[], list[FileDataset]], reason: Reason
) -> None:
    assert reason_of(series()) is reason


def test_directions_that_are_not_perpendicular_are_no_geometry() -> None:
    series = slices(VOLUME)
    for dataset in series:
        dataset.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    assert reason_of(series) is Reason.NO_GEOMETRY


@given(gap=st.floats(0.3, 10), count=st.integers(4, 20), dropped=st.integers(1, 18))
def test_a_slice_missing_inside_is_always_seen(gap: float, count: int, dropped: int) -> None:
    headers = [_at(number * gap) for number in range(count) if number != dropped % count]
    if dropped % count in {0, count - 1}:
        order, geometry = order_slices([(h, 0) for h in headers])
        assert order == list(range(count - 1))
        assert geometry.spacing[0] == pytest.approx(gap)
        return
    with pytest.raises(UnusableFile) as caught:
        order_slices([(h, 0) for h in headers])
    assert caught.value.reason is Reason.MISSING_SLICES


def _at(level: float) -> Header:
    return Header(
        patient="P",
        study="S",
        series="1",
        instance="1",
        accession="",
        modality="CT",
        shape=(4, 4),
        frames=1,
        spacing=(1.0, 1.0),
        positions=((0.0, 0.0, level),),
        orientations=((1.0, 0.0, 0.0, 0.0, 1.0, 0.0),),
    )
