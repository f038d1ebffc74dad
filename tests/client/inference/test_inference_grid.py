"""An answer on the network's grid, brought back to the pixels that were sent."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from client.dicom.reading.volume import Turn
from client.inference.grid import (
    FrameOrigin,
    by_frame,
    source_labels,
    strongest_plane,
    unfit,
    unturned,
)
from client.inference.study_reading import SiteRows, read_study
from common.config.run_config import Images, RunConfig
from common.data.preprocessing import prepare, prepare_labels
from tests.client.dicom_files import config_of, image, noise, placed, save, slices

TOP = 4  # labels 0 to 4
NOBODY = SiteRows(labels=None, withdrawn=frozenset())


def outlining(size: list[int], fit: str = "crop") -> RunConfig:
    """Return a run whose images keep their values: label / TOP where a pixel holds the label."""
    cohort = f"{{images: {{size: {size}, fit: {fit}, intensity: window, window: [0, {TOP}]}}}}"
    return config_of(cohort=cohort)  # reading a study asks for the images alone


def logits(labels: torch.Tensor) -> torch.Tensor:
    """Return the output of a network that is sure, (labels, *size) of (*size)."""
    return F.one_hot(labels.long(), TOP + 1).movedim(-1, 0).float() * 40


def seen(picture: torch.Tensor) -> torch.Tensor:
    """Return the output of a network that names the pixel value it sees, (labels, *size)."""
    return logits((picture[0] * TOP).round())


ORIENTATIONS = [
    (row, column)
    for row, column in itertools.permutations(
        [tuple(float(v) for v in np.eye(3)[a] * s) for a in range(3) for s in (1, -1)], 2
    )
    if abs(np.dot(row, column)) < 0.5
]
OBLIQUE = [
    (tuple(np.cos(0.4) * np.array([1, 0, 0]) + np.sin(0.4) * np.array([0, 0, 1])), (0.0, 1.0, 0.0)),
    ((0.0, 1.0, 0.0), tuple(np.cos(1.0) * np.array([0, 0, 1]) + np.sin(1.0) * np.array([1, 0, 0]))),
]


@pytest.mark.parametrize(("along", "down"), [*ORIENTATIONS, *OBLIQUE])
def test_every_voxel_ends_on_the_pixel_that_it_was_seen_on(
    along: tuple[float, ...], down: tuple[float, ...], tmp_path: Path
) -> None:
    """Whatever plane was scanned in whatever sense, and however the files are named."""
    values = noise(5, 6, 7, top=TOP + 1)
    normal = np.cross(along, down)
    series = [
        placed(image(plane, number=n), tuple(normal * n * 2.0), (*along, *down))
        for n, plane in enumerate(values)
    ]
    random.Random(str(along + down)).shuffle(series)
    files = [save(tmp_path / f"{n}.dcm", dataset) for n, dataset in enumerate(series)]
    config = outlining([9, 9, 9])
    (item,) = read_study(files, config, NOBODY).items
    assert item.place is not None
    found = source_labels(seen(item.image), item.place, images_of(config))
    assert len(item.place.sources) == len(found) == 5
    for source, plane in zip(item.place.sources, found, strict=True):
        assert np.array_equal(plane, dcmread(source).pixel_array)
    positions = [dcmread(s).ImagePositionPatient for s in item.place.sources]
    assert np.all(np.diff(positions, axis=0) @ normal > 0) or np.all(
        np.diff(positions, axis=0) @ normal < 0
    ), "sources follow each other as slices do"


def images_of(config: RunConfig) -> Images:
    assert config.cohort.images is not None
    return config.cohort.images


def test_what_was_cropped_is_background_and_the_rest_stays_in_place(tmp_path: Path) -> None:
    values = noise(11, 12, 9, top=TOP + 1)
    files = [save(tmp_path / f"{n}.dcm", d) for n, d in enumerate(slices(values))]
    config = outlining([8, 8, 20])
    (item,) = read_study(files, config, NOBODY).items
    assert item.place is not None
    found = source_labels(seen(item.image), item.place, images_of(config))
    expected = np.zeros_like(values)
    expected[1:9, 2:10] = values[1:9, 2:10]
    assert np.array_equal(found, expected)


def test_a_volume_that_keeps_its_own_extent_comes_back_whole(tmp_path: Path) -> None:
    """Where it is larger than a patch, smaller than one, and at a spacing of its own."""
    values = noise(11, 12, 9, top=TOP + 1)
    files = [save(tmp_path / f"{n}.dcm", d) for n, d in enumerate(slices(values))]
    rules = "spacing: [2.0, 0.5, 0.7], intensity: window, window: [0, 4]"
    for patch in ([8, 8, 8], [16, 8, 16]):
        config = config_of(
            "{kind: segmentation}", f"{{images: {{patch: {patch}, {rules}}}}}", "segresnet"
        )
        (item,) = read_study(files, config, NOBODY).items
        assert item.place is not None
        assert item.image.shape[1:] == tuple(map(max, values.shape, patch))
        found = source_labels(seen(item.image), item.place, images_of(config))
        assert np.array_equal(found, values)


def enhanced(values: np.ndarray, order: list[int]) -> FileDataset:
    """Return a volume as one object whose frames lie in this order along the patient."""
    dataset = image(values.astype(np.uint8))
    dataset.Modality = "CT"
    shared, frames = Dataset(), []
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    measures.PixelSpacing = [1.0, 1.0]
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelMeasuresSequence = Items([measures])
    for level in order:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, 3.0 * level]
        group.PlanePositionSequence = Items([place])
        frames.append(group)
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    return dataset


def test_frames_of_one_object_keep_their_own_order(tmp_path: Path) -> None:
    values = noise(4, 6, 5, top=TOP + 1)
    file = save(tmp_path / "enhanced.dcm", enhanced(values, [2, 0, 3, 1]))
    config = outlining([8, 8, 8])
    (item,) = read_study([file], config, NOBODY).items
    assert item.place is not None
    found = source_labels(seen(item.image), item.place, images_of(config))
    assert np.array_equal(found, values)


def test_a_frame_of_a_2d_object_is_outlined_where_it_is(tmp_path: Path) -> None:
    values = noise(3, 10, 6, top=TOP + 1).astype(np.uint8)
    file = save(tmp_path / "cine.dcm", image(values))
    config = outlining([8, 8])
    study = read_study([file], config, NOBODY)
    assert len(study.items) == 3
    for frame, item in enumerate(study.items):
        assert item.place is not None
        found = source_labels(seen(item.image), item.place, images_of(config))
        expected = np.zeros_like(values)
        expected[frame, 1:9] = values[frame, 1:9]
        assert np.array_equal(found, expected)


@given(
    transposed=st.booleans(),
    flipped=st.sets(st.sampled_from([1, 2])),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_a_turn_is_undone_exactly(
    transposed: bool,  # noqa: FBT001
    flipped: set[int],
    shape: tuple[int, int, int],
) -> None:
    values = noise(*shape)
    turn = Turn(transposed=transposed, flipped=tuple(sorted(flipped)))
    assert np.array_equal(unturned(turn.values(values), turn), values)


def place_of(shape: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> FrameOrigin:
    """Return the place of a volume of so many files, one a slice, as scanned."""
    planes = shape[0] if len(shape) == 3 else 1
    return FrameOrigin(
        sources=tuple(Path(str(n)) for n in range(planes)),
        frames=(1,) * planes,
        planes=tuple((n, 0) for n in range(planes)),
        turn=Turn(transposed=False, flipped=()),
        shape=shape,
        spacing=spacing,
    )


def blob(shape: tuple[int, ...]) -> np.ndarray:
    """Return an ellipsoid off the middle, label 1 in front and label 2 behind."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    away = np.sqrt(((grid - 0.1) ** 2).sum(axis=0))
    return (away < 0.75).astype(np.uint8) * (1 + (grid[0] > 0.1)).astype(np.uint8)


def dice(found: np.ndarray, truth: np.ndarray, label: int) -> float:
    ours, theirs = found == label, truth == label
    return 2 * float((ours & theirs).sum()) / float(ours.sum() + theirs.sum())


@given(
    shape=st.one_of(st.tuples(*[st.integers(24, 48)] * 2), st.tuples(*[st.integers(20, 32)] * 3)),
    fit=st.sampled_from(["letterbox", "stretch"]),
)
def test_a_label_map_survives_the_way_to_the_network_and_back(
    shape: tuple[int, ...], fit: Literal["letterbox", "stretch"]
) -> None:
    """Resampled to half or twice the size, by whatever ratio, most voxels come back."""
    size = (40, 28) if len(shape) == 2 else (22, 40, 28)
    rules = Images(size=size, fit=fit)
    truth = blob(shape)
    output = logits(prepare_labels(truth, None, rules))
    found = by_frame_of(output, place_of(shape), rules)
    assert dice(found, truth, 1) > 0.85
    assert dice(found, truth, 2) > 0.85


def by_frame_of(output: torch.Tensor, place: FrameOrigin, rules: Images) -> np.ndarray:
    found = source_labels(output, place, rules)
    return found if len(place.shape) == 3 else found[0]


@given(
    shape=st.tuples(*[st.integers(2, 9)] * 3), fit=st.sampled_from(["letterbox", "crop", "stretch"])
)
def test_where_sizes_are_equal_nothing_changes(
    shape: tuple[int, int, int], fit: Literal["letterbox", "crop", "stretch"]
) -> None:
    rules = Images(size=shape, fit=fit)
    truth = noise(*shape, top=TOP + 1).astype(np.uint8)
    output = logits(prepare_labels(truth, (2.0, 1.0, 1.0), rules))
    assert np.array_equal(source_labels(output, place_of(shape, (2.0, 1.0, 1.0)), rules), truth)


@given(
    shape=st.tuples(*[st.integers(20, 30)] * 3),
    gap=st.floats(0.9, 2.0),
    pixel=st.floats(0.9, 1.6),
    fit=st.sampled_from(["letterbox", "crop"]),
)
def test_a_label_map_survives_resampling_in_mm(
    shape: tuple[int, int, int], gap: float, pixel: float, fit: Literal["letterbox", "crop"]
) -> None:
    rules = Images(size=(60, 60, 60), fit=fit, spacing=(1.0, 1.0, 1.0))
    place = place_of(shape, (gap, pixel, pixel))
    truth = blob(shape)
    found = source_labels(logits(prepare_labels(truth, place.spacing, rules)), place, rules)
    assert dice(found, truth, 1) > 0.85
    assert dice(found, truth, 2) > 0.85


@given(shape=st.tuples(*[st.integers(12, 30)] * 2), fit=st.sampled_from(["letterbox", "stretch"]))
def test_a_bright_spot_comes_back_where_it_was(
    shape: tuple[int, int], fit: Literal["letterbox", "stretch"]
) -> None:
    """The way back is the way there, not one that is off by half a pixel."""
    rules = Images(size=(64, 48), fit=fit, intensity="window", window=(0, 1))
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    middle = (shape[0] * 0.3, shape[1] * 0.65)
    picture = np.exp(-((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / 8)
    back = unfit(prepare(picture.astype(np.float32), None, rules), place_of(shape), rules)[0]
    weight = back.numpy() ** 2
    expected = picture**2
    for axis in (rows, columns):
        ours = (axis * weight).sum() / weight.sum()
        assert ours == pytest.approx((axis * expected).sum() / expected.sum(), abs=0.12)


def test_the_strongest_plane_is_the_one_with_the_most(tmp_path: Path) -> None:
    values = np.zeros((5, 8, 8), np.uint16)
    values[3, 2:5, 1:4] = TOP
    values[1, 7, 7] = 1
    files = [save(tmp_path / f"{9 - n}.dcm", d) for n, d in enumerate(slices(values))]
    config = outlining([8, 8, 8])
    (item,) = read_study(files, config, NOBODY).items
    assert item.place is not None
    plane, source, frame = strongest_plane(item.image[0], item.place, images_of(config))
    assert item.place.sources[source].name == "6.dcm"
    assert frame == 0
    assert np.array_equal(plane > 0.5, values[3] > 0)


def test_labels_of_frames_lie_after_those_of_the_sources_before() -> None:
    place = FrameOrigin(
        sources=(Path("a"), Path("b")),
        frames=(2, 3),
        planes=((1, 2), (0, 1)),
        turn=Turn(transposed=False, flipped=()),
        shape=(2, 1, 1),
        spacing=None,
    )
    found = by_frame(np.array([[[7]], [[8]]], np.uint8), place)
    assert found.ravel().tolist() == [0, 8, 0, 0, 7]
