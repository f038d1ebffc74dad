from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from client.dicom.masks.png import read_png
from client.dicom.masks.seg import read_image_segmentation, read_segmentation
from client.dicom.masks.seg_segments import Structures
from client.dicom.reading.read import read_header, read_pixels
from client.dicom.reading.volume import stack_slices
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import image, noise, placed, save, segmentation, slices

LESION = {"lesion": (0,)}
PARTS = {"front": (1,), "back": (2,)}
SHAPE = (4, 5, 6)


def png(path: Path, values: NDArray[np.generic]) -> Path:
    Image.fromarray(values).save(path)
    return path


def mask(seed: int) -> NDArray[np.uint8]:
    found = np.random.default_rng(seed).integers(0, 2, SHAPE).astype(np.uint8)
    found[0] = 0  # a slice without a frame in the segmentation
    return found


def reason_of(error: pytest.ExceptionInfo[UnusableFile]) -> Reason:
    return error.value.reason


def placed_on(path: Path, series: list[FileDataset], structures: Structures) -> NDArray[np.uint8]:
    pixels, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in series])
    slices_, rows, columns = pixels.stored.shape
    return read_segmentation(path, (slices_, rows, columns), geometry, structures)


@pytest.mark.parametrize(
    ("values", "structures", "expected"),
    [
        ([[0, 255], [255, 0]], LESION, [[0, 1], [1, 0]]),
        ([[0, 3], [7, 0]], LESION, [[0, 1], [1, 0]]),
        ([[0, 255], [255, 0]], {"lesion": (1,)}, [[0, 1], [1, 0]]),
        ([[0, 1], [2, 3]], PARTS, [[0, 1], [2, 0]]),
        ([[0, 1], [2, 3]], {"back": (2, 3), "front": (1,)}, [[0, 2], [1, 1]]),
        ([[0, 0], [0, 0]], PARTS, [[0, 0], [0, 0]]),
    ],
)
def test_png_values_become_structures_in_the_order_of_the_configuration(
    tmp_path: Path, values: list[list[int]], structures: Structures, expected: list[list[int]]
) -> None:
    path = png(tmp_path / "m.png", np.array(values, np.uint8))
    assert read_png(path, (2, 2), structures).tolist() == expected


def test_black_and_white_and_grey_colour_pngs_are_read(tmp_path: Path) -> None:
    values = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(values).convert("1").save(tmp_path / "one.png")
    Image.fromarray(values).convert("RGB").save(tmp_path / "rgb.png")
    for name in ("one.png", "rgb.png"):
        assert read_png(tmp_path / name, (2, 2), LESION).tolist() == [[0, 1], [1, 0]]


def test_a_png_of_another_size_is_unusable(tmp_path: Path) -> None:
    path = png(tmp_path / "m.png", np.zeros((3, 2), np.uint8))
    with pytest.raises(UnusableFile) as caught:
        read_png(path, (2, 2), LESION)
    assert reason_of(caught) is Reason.MASK_UNUSABLE


def test_a_png_whose_values_no_structure_has_is_unusable_not_empty(tmp_path: Path) -> None:
    path = png(tmp_path / "m.png", np.full((2, 2), 9, np.uint8))
    with pytest.raises(UnusableFile) as caught:
        read_png(path, (2, 2), PARTS)
    assert reason_of(caught) is Reason.MASK_UNUSABLE
    assert "9" in caught.value.detail


def test_missing_broken_and_coloured_pngs_say_so(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile) as caught:
        read_png(tmp_path / "none.png", (2, 2), LESION)
    assert reason_of(caught) is Reason.MASK_MISSING
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    colored = png(tmp_path / "c.png", np.array([[[255, 0, 0], [0, 0, 0]]], np.uint8))
    for path, shape in ((tmp_path / "broken.png", (2, 2)), (colored, (1, 2))):
        with pytest.raises(UnusableFile) as caught:
            read_png(path, shape, LESION)
        assert reason_of(caught) is Reason.MASK_UNUSABLE


def test_a_segmentation_lands_on_its_slices_whatever_the_order(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    first, second = mask(1), mask(2)
    second[first > 0] = 0
    path = save(tmp_path / "s", segmentation({1: first, 2: second}, series))
    found = placed_on(path, series[::-1], PARTS)
    assert np.array_equal(found, first + 2 * second)
    assert np.array_equal(placed_on(path, series, {"all": (0,)}), (first + second) > 0)
    assert np.array_equal(placed_on(path, series, {"back": (2,)}), second)


@pytest.mark.parametrize("cosines", [(-1, 0, 0, 0, -1, 0), (0, 1, 0, 0, 0, -1), (0, 1, 0, 1, 0, 0)])
def test_a_segmentation_is_turned_with_its_volume(
    tmp_path: Path, cosines: tuple[float, ...]
) -> None:
    """The mask of bright voxels is where the voxels are bright, however the scan lay."""
    first = mask(3)
    normal = np.cross(cosines[:3], cosines[3:])
    series = [
        placed(image(plane.astype(np.uint16) * 100, number=n), 2.0 * n * normal, cosines)
        for n, plane in enumerate(first)
    ]
    path = save(tmp_path / "s", segmentation({1: first}, series))
    pixels, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in series])
    slices_, rows, columns = pixels.stored.shape
    found = read_segmentation(path, (slices_, rows, columns), geometry, LESION)
    assert np.array_equal(found > 0, pixels.stored > 0)


def test_fractions_count_from_one_half(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    dataset = segmentation({1: np.ones(SHAPE, np.uint8)}, series)
    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 200
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    values = noise(*SHAPE, dtype="uint8", top=200)
    dataset.PixelData = values.tobytes()
    found = placed_on(save(tmp_path / "s", dataset), series, LESION)
    assert np.array_equal(found > 0, values >= 100)


def test_a_label_map_holds_its_segments_as_values(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    dataset = segmentation({1: np.ones(SHAPE, np.uint8)}, series)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.66.7"
    )
    dataset.SegmentSequence.append(segmentation({2: mask(0)}, series).SegmentSequence[0])
    dataset.SegmentationType = "LABELMAP"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    values = noise(*SHAPE, dtype="uint8", top=3)
    dataset.PixelData = values.tobytes()
    assert np.array_equal(placed_on(save(tmp_path / "s", dataset), series, PARTS), values)


def fractions(
    series: list[FileDataset], values: NDArray[np.uint8], whole: int | None
) -> FileDataset:
    dataset = segmentation({1: np.ones(SHAPE, np.uint8)}, series)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = values.tobytes()
    dataset.SegmentationType = "FRACTIONAL"
    if whole is not None:
        dataset.MaximumFractionalValue = whole
    return dataset


def test_a_binary_segmentation_has_no_largest_fraction(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    dataset = segmentation({1: mask(1)}, series)
    dataset.MaximumFractionalValue = 255
    assert np.array_equal(placed_on(save(tmp_path / "s", dataset), series, LESION), mask(1))


def test_fractions_of_nothing_and_fractions_below_one_half_are_unusable_not_empty(
    tmp_path: Path,
) -> None:
    series = slices(noise(*SHAPE))
    for values, whole, said in (
        (mask(1) * np.uint8(200), None, "MaximumFractionalValue"),
        (mask(1) * np.uint8(80), 200, "80/200"),
    ):
        path = save(tmp_path / "s", fractions(series, values, whole))
        with pytest.raises(UnusableFile) as caught:
            placed_on(path, series, LESION)
        assert reason_of(caught) is Reason.MASK_UNUSABLE
        assert said in caught.value.detail


def test_a_lesion_that_nowhere_reaches_one_half_is_told_beside_one_that_does(
    tmp_path: Path,
) -> None:
    shape = (8, 16, 16)
    series = slices(noise(*shape))
    values = np.zeros(shape, np.uint8)
    values[1:4, 1:5, 1:5], values[4:8, 8:13, 8:13] = 200, 80
    values[1, 1:5, 1:5] = 80  # the end of the first, which counts as it is
    dataset = segmentation({1: np.ones(shape, np.uint8)}, series)
    dataset.SegmentationType, dataset.MaximumFractionalValue = "FRACTIONAL", 200
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = values.tobytes()
    _, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in series])
    told: list[UnusableFile] = []
    path = save(tmp_path / "s", dataset)
    found = read_segmentation(path, shape, geometry, LESION, tell=told.append)
    assert np.array_equal(found > 0, values == 200)
    assert [one.reason for one in told] == [Reason.MASK_CUT]
    assert "lesion: 1 of 2 parts (100 of 148 pixels)" in told[0].detail


def test_what_pads_a_label_map_is_background(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    drawn = mask(1)
    dataset = fractions(series, np.where(drawn > 0, 1, 255).astype(np.uint8), None)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(
        "1.2.840.10008.5.1.4.1.1.66.7"
    )
    dataset.SegmentationType, dataset.PixelPaddingValue = "LABELMAP", 255
    assert np.array_equal(placed_on(save(tmp_path / "s", dataset), series, LESION), drawn)


def test_a_segmentation_between_the_slices_or_on_every_second_one_is_unusable(
    tmp_path: Path,
) -> None:
    """Half a slice aside it would fall on either of two; on thick slices it would have holes."""
    series = slices(noise(12, 5, 6))
    block = np.zeros((12, 5, 6), np.uint8)
    block[2:10, 1:4, 1:4] = 1
    aside = segmentation({1: block}, series)
    for groups in aside.PerFrameFunctionalGroupsSequence:
        place = groups.PlanePositionSequence[0]
        place.ImagePositionPatient = [
            *place.ImagePositionPatient[:2],
            str(float(place.ImagePositionPatient[2]) + 1),
        ]
    thick = segmentation({1: block[::2]}, series[::2])
    for dataset, said in ((aside, "between the voxels"), (thick, "one slice of 2")):
        with pytest.raises(UnusableFile) as caught:
            placed_on(save(tmp_path / "s", dataset), series, LESION)
        assert said in caught.value.detail


def test_small_lesions_on_single_slices_are_taken_as_they_are(tmp_path: Path) -> None:
    series = slices(noise(12, 5, 6))
    spots = np.zeros((12, 5, 6), np.uint8)
    spots[1, 0, 0] = spots[4, 2, 3] = spots[9, 4, 5] = 1
    path = save(tmp_path / "s", segmentation({1: spots}, series))
    assert np.array_equal(placed_on(path, series, LESION), spots)


def test_a_segmentation_beside_its_volume_is_unusable(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    away = slices(noise(*SHAPE))
    for dataset in away:
        dataset.ImagePositionPatient = [30.0, 0.0, dataset.ImagePositionPatient[2]]
    above = slices(noise(9, 5, 6))[4:8]
    coarse = slices(noise(*SHAPE))
    for dataset in coarse:
        dataset.PixelSpacing = [1.0, 1.4]
    for others in (away, above, coarse):
        path = save(tmp_path / "s", segmentation({1: mask(1)}, others))
        with pytest.raises(UnusableFile) as caught:
            placed_on(path, series, LESION)
        assert reason_of(caught) is Reason.MASK_UNUSABLE


def test_a_segmentation_without_the_wanted_segments_is_unusable_not_empty(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    path = save(tmp_path / "s", segmentation({3: mask(1)}, series))
    with pytest.raises(UnusableFile) as caught:
        placed_on(path, series, PARTS)
    assert "[3]" in caught.value.detail


def test_a_segmentation_that_is_an_image_or_cut_short_is_unusable(tmp_path: Path) -> None:
    series = slices(noise(*SHAPE))
    short = segmentation({1: mask(1)}, series)
    short.PixelData = short.PixelData[:2]
    bare = segmentation({1: mask(1)}, series)
    del bare.SegmentSequence
    for dataset in (series[0], short, bare):
        with pytest.raises(UnusableFile) as caught:
            placed_on(save(tmp_path / "s", dataset), series, LESION)
        assert reason_of(caught) is Reason.MASK_UNUSABLE


def test_a_flat_image_takes_the_frames_that_name_it(tmp_path: Path) -> None:
    images = [image(noise(5, 6), number=n) for n in range(4)]
    first = mask(1)
    path = save(tmp_path / "s", segmentation({1: first}, images))
    for number in (1, 2, 3):
        found = read_image_segmentation(path, read_header(images[number]), 0, LESION)
        assert np.array_equal(found, first[number])
    with pytest.raises(UnusableFile):
        read_image_segmentation(path, read_header(image(noise(5, 6), number=9)), 0, LESION)


def test_a_frame_that_lies_otherwise_than_its_flat_image_is_unusable(tmp_path: Path) -> None:
    """Upside down, aside or in other pixels it would be taken as it is, and be somewhere else."""
    values = noise(1, 16, 24)
    drawn = np.zeros(values.shape, np.uint8)
    drawn[0, 2:9, 3:12] = 1
    (own,) = slices(values)
    header = read_header(own)
    path = save(tmp_path / "s", segmentation({1: drawn}, [own]))
    assert np.array_equal(read_image_segmentation(path, header, 0, LESION), drawn[0])
    rows = 15 * 0.5
    for position, cosines, spacing, said in (
        ((0, rows, 0), (1, 0, 0, 0, -1, 0), (0.5, 0.7), "another orientation"),
        ((5, 0, 0), (1, 0, 0, 0, 1, 0), (0.5, 0.7), "different grids"),
        ((0, 0, 0), (1, 0, 0, 0, 1, 0), (1.0, 1.4), "different grids"),
    ):
        (other,) = slices(values)
        placed(other, position, cosines, spacing)
        save(path, segmentation({1: drawn}, [other]))
        with pytest.raises(UnusableFile) as caught:
            read_image_segmentation(path, header, 0, LESION)
        assert said in caught.value.detail
