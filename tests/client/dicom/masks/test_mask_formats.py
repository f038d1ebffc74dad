"""The same outline, drawn in another program, is the same label map."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from client.dicom.masks.contours import windings
from client.dicom.masks.mask_remarks import Tell
from client.dicom.masks.nifti import read_nifti
from client.dicom.masks.rtstruct import DrawnVolume, read_structure_set
from client.dicom.masks.seg import read_segmentation
from client.dicom.reading.read import read_dataset, read_header, read_pixels
from client.dicom.reading.volume import levels_of, stack_slices
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import (
    SHARED,
    config_of,
    image,
    load,
    noise,
    placed,
    save,
    segmentation,
    uid,
    write_labels,
)
from tests.client.structure_sets import borders, item, structure_set
from tests.peers import program

SHAPE = (5, 14, 11)
PARTS = {"front": (1,), "back": (2,)}
FLOATS = NDArray[np.float64]


def oblique(first: float, second: float) -> tuple[float, ...]:
    """Return cosines that are turned out of the axial plane by two angles."""
    a, b = np.cos(first), np.sin(first)
    c, d = np.cos(second), np.sin(second)
    return (a, b, 0.0, -b * c, a * c, d)


ORIENTATIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "axial, prone": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "transposed": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
    "oblique": oblique(0.3, -0.4),
    "steeply oblique": oblique(-0.7, 1.1),
}
oriented = pytest.mark.parametrize("cosines", ORIENTATIONS.values(), ids=ORIENTATIONS)


def series_of(cosines: Sequence[float], gap: float = 3.3) -> list[FileDataset]:
    """Return a series with other distances along each axis."""
    normal = np.cross(cosines[:3], cosines[3:])
    found = [
        placed(
            image(plane, "P1", "S1", "1", n),
            np.array([-30.0, 12.5, 7.0]) + gap * n * normal,
            cosines,
            (0.7, 1.9),
        )
        for n, plane in enumerate(noise(*SHAPE))
    ]
    for dataset in found:
        dataset.FrameOfReferenceUID = uid("frame")
    return found


def mask_of(seed: int = 0) -> NDArray[np.uint8]:
    """Return two structures: the first with a hole, the second in two pieces that touch."""
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2:11, 1:9] = 1
    found[2, 4:8, 3:6] = 0
    found[4, 9:12, 8:] = 2
    found[4, 12:, 6:8] = 2
    found[3, 0, 0] = 2
    speckled = np.random.default_rng(seed).integers(0, 9, SHAPE) == 0
    found[speckled] = 2
    found[0] = 0
    return found


def affine_of(series: Sequence[FileDataset]) -> FLOATS:
    """Return index (column, row, slice) -> mm right, forward, up, as a NIfTI's writer would."""
    first = series[0]
    along = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    corner = np.array(first.ImagePositionPatient, float)
    found = np.eye(4)
    found[:3, 0] = along[0] * float(first.PixelSpacing[1])
    found[:3, 1] = along[1] * float(first.PixelSpacing[0])
    found[:3, 2] = np.array(series[1].ImagePositionPatient, float) - corner
    found[:3, 3] = corner
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ found


def nifti(
    path: Path, mask: NDArray[np.generic], affine: FLOATS, *, sform: int = 1, qform: int = 1
) -> Path:
    """Write (slices, rows, columns) as a NIfTI-1 file."""
    written = nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine)
    written.set_sform(affine, sform)
    written.set_qform(affine, qform)
    nibabel.save(written, path)
    return path


def drawn_on(series: Sequence[FileDataset]) -> DrawnVolume:
    pixels, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in series])
    slices, rows, columns = pixels.stored.shape
    return DrawnVolume(
        shape=(slices, rows, columns),
        geometry=geometry,
        series=str(series[0].SeriesInstanceUID),
        instances=frozenset(str(d.SOPInstanceUID) for d in series),
        frame_of_reference=str(series[0].get("FrameOfReferenceUID") or ""),
        levels=levels_of([read_header(d) for d in series], geometry),
    )


def from_segmentation(
    folder: Path, series: Sequence[FileDataset], mask: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    masks = {n: (mask == n).astype(np.uint8) for n in (1, 2)}
    path = save(folder / "seg", segmentation(masks, series))
    drawn = drawn_on(series)
    return read_segmentation(path, drawn.shape, drawn.geometry, PARTS)


def from_nifti(path: Path, series: Sequence[FileDataset], *, resample: bool = False) -> object:
    drawn = drawn_on(series)
    return read_nifti(path, drawn.shape, drawn.geometry, PARTS, resample=resample)


def from_contours(
    folder: Path, series: Sequence[FileDataset], dataset: FileDataset
) -> NDArray[np.uint8]:
    return read_structure_set(save(folder / "rt", dataset), drawn_on(series), PARTS)


def named(mask: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    return {name: (mask == n).astype(np.uint8) for n, name in enumerate(PARTS, 1)}


def refused(run: Callable[[], object]) -> str:
    """Return why a mask was refused."""
    with pytest.raises(UnusableFile) as caught:
        run()
    assert caught.value.reason is Reason.MASK_UNUSABLE
    return caught.value.detail


@oriented
@pytest.mark.parametrize("backwards", [False, True])
def test_seg_nifti_and_contours_of_one_outline_give_one_label_map(
    tmp_path: Path,
    cosines: Sequence[float],
    backwards: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    series, mask = series_of(cosines), mask_of()
    expected = from_segmentation(tmp_path, series, mask)
    assert np.bincount(expected.reshape(-1)).tolist() == np.bincount(mask.reshape(-1)).tolist()
    affine = affine_of(series)
    if backwards:
        mask, series = mask[::-1], series[::-1]
        affine = affine_of(series)
    for name in ("m.nii", "m.nii.gz"):
        path = nifti(tmp_path / name, mask, affine)
        assert np.array_equal(from_nifti(path, series), expected)
        assert np.array_equal(from_nifti(path, series, resample=True), expected)
    dataset = structure_set(named(mask), series)
    assert np.array_equal(from_contours(tmp_path, series, dataset), expected)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_nifti_in_any_order_and_sense_of_its_axes_lies_where_its_affine_says(
    tmp_path: Path, axes: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    series, mask = series_of(ORIENTATIONS["oblique"]), mask_of(1)
    expected = from_segmentation(tmp_path, series, mask)
    values, affine = mask.transpose(2, 1, 0), affine_of(series)
    for axis in flips:
        values = np.flip(values, axis)
        affine[:, 3] += affine[:, axis] * (values.shape[axis] - 1)
        affine[:, axis] *= -1
    affine = affine[:, [*axes, 3]]
    written = nibabel.Nifti1Image(values.transpose(axes), affine)
    nibabel.save(written, tmp_path / "m.nii.gz")
    assert np.array_equal(from_nifti(tmp_path / "m.nii.gz", series), expected)


def test_a_nifti_of_a_part_of_the_volume_is_put_into_it(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["oblique"]), mask_of()
    mask[:, :, 9:] = mask[:, :2] = mask[:1] = 0
    expected = from_segmentation(tmp_path, series, mask)
    affine = affine_of(series)
    affine[:3, 3] += affine[:3, 1] * 2 + affine[:3, 2]
    path = nifti(tmp_path / "m.nii", mask[1:, 2:, :9], affine)
    assert np.array_equal(from_nifti(path, series), expected)
    affine[:3, 3] -= affine[:3, 0] * 5
    path = nifti(tmp_path / "n.nii", mask[1:, 2:, :9], affine)
    assert "outside the volume" in refused(lambda: from_nifti(path, series))


def test_a_nifti_beside_the_grid_is_refused_and_resampled_only_where_that_is_asked(
    tmp_path: Path,
) -> None:
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    affine = affine_of(series)
    fine = np.kron(mask, np.ones((1, 2, 2), np.uint8))
    half = affine @ np.diag([0.5, 0.5, 1, 1])
    half[:3, 3] = (affine @ [-0.25, -0.25, 0, 1])[:3]
    path = nifti(tmp_path / "fine.nii", fine, half)
    assert "different grids" in refused(lambda: from_nifti(path, series))
    assert np.array_equal(
        from_nifti(path, series, resample=True), from_segmentation(tmp_path, series, mask)
    )
    turned = affine @ np.array(
        [
            [np.cos(0.1), -np.sin(0.1), 0, 0],
            [np.sin(0.1), np.cos(0.1), 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
        ]
    )
    path = nifti(tmp_path / "turned.nii", mask, turned, qform=0)
    assert "different grids" in refused(lambda: from_nifti(path, series))
    affine[:3, 3] += affine[:3, 0] * 0.4
    path = nifti(tmp_path / "moved.nii", mask, affine)
    assert "different grids" in refused(lambda: from_nifti(path, series))


def test_sform_and_qform_are_both_understood_and_must_agree(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["oblique"]), mask_of()
    expected, affine = from_segmentation(tmp_path, series, mask), affine_of(series)
    for sform, qform in ((1, 0), (0, 1), (2, 1)):
        path = nifti(tmp_path / "m.nii", mask, affine, sform=sform, qform=qform)
        assert np.array_equal(from_nifti(path, series), expected)
    path = nifti(tmp_path / "none.nii", mask, affine, sform=0, qform=0)
    assert "sform and qform are not set" in refused(lambda: from_nifti(path, series))
    written = nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine)
    other = affine.copy()
    other[0, 3] += 5
    written.set_qform(other, 1)
    written.set_sform(affine, 1)
    nibabel.save(written, tmp_path / "two.nii")
    assert "place it differently" in refused(lambda: from_nifti(tmp_path / "two.nii", series))


def test_a_nifti_in_metres_is_as_large_as_one_in_millimetres(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["oblique"]), mask_of()
    metres = np.diag([0.001, 0.001, 0.001, 1.0]) @ affine_of(series)
    written = nibabel.Nifti1Image(mask.transpose(2, 1, 0), metres)
    written.header.set_xyzt_units("meter")
    nibabel.save(written, tmp_path / "m.nii")
    expected = from_segmentation(tmp_path, series, mask)
    assert np.array_equal(from_nifti(tmp_path / "m.nii", series), expected)


@pytest.mark.parametrize("unit", [0, 2, 5])
def test_a_nifti_in_no_known_unit_is_in_millimetres(tmp_path: Path, unit: int) -> None:
    series, mask = series_of(ORIENTATIONS["oblique"]), mask_of()
    written = nibabel.Nifti1Image(mask.transpose(2, 1, 0), affine_of(series))
    written.header["xyzt_units"] = unit
    nibabel.save(written, tmp_path / "m.nii")
    expected = from_segmentation(tmp_path, series, mask)
    assert np.array_equal(from_nifti(tmp_path / "m.nii", series), expected)


def test_a_nifti_that_is_damaged_though_it_has_all_its_voxels_is_refused(tmp_path: Path) -> None:
    series = series_of(ORIENTATIONS["axial"])
    whole = nifti(tmp_path / "m.nii", mask_of(), affine_of(series)).read_bytes()
    packed = gzip.compress(whole)
    checksum, begins = bytearray(packed), bytearray(whole)
    checksum[-8] ^= 0xFF
    begins[108:112] = bytes(4)  # its voxels begin in the header
    for name, content, why in (
        ("sum.nii.gz", bytes(checksum), "CRC"),
        ("cut.nii.gz", packed[:-8], "EOFError"),
        ("more.nii.gz", packed + packed, "behind the voxels"),
        ("begins.nii", bytes(begins), "expected at least 352"),
    ):
        (tmp_path / name).write_bytes(content)
        assert why in refused(lambda name=name: from_nifti(tmp_path / name, series)), name


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m * 0.5, "between whole numbers"),
        (lambda m: m.astype(np.float32) + np.float32(np.nan), "between whole numbers"),
        (lambda m: m.astype(np.complex64), "expected whole numbers"),
        (lambda m: m * 7, "no structure has the value"),
    ],
)
def test_a_nifti_that_is_no_label_map_is_refused(
    tmp_path: Path, change: Callable[[NDArray[np.generic]], NDArray[np.generic]], why: str
) -> None:
    series = series_of(ORIENTATIONS["axial"])
    path = nifti(tmp_path / "m.nii", change(mask_of()), affine_of(series))
    assert why in refused(lambda: from_nifti(path, series))


@pytest.mark.parametrize(("slope", "intercept"), [(0.01, 0.0), (0.5, 0.0), (0.1, -0.3)])
def test_a_niftis_scaling_is_applied_where_whole_numbers_follow_and_else_named(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    """As a program writes it that saved the mask like an image (scl_slope, scl_inter)."""
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    expected = from_segmentation(tmp_path, series, mask)
    stored = np.rint((mask.astype(np.float64) - intercept) / slope).astype(np.int16)
    for name, values in (("right", stored), ("wrong", mask.astype(np.int16))):
        written = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine_of(series))
        written.header.set_slope_inter(slope, intercept)
        nibabel.save(written, tmp_path / f"{name}.nii")
    assert np.array_equal(from_nifti(tmp_path / "right.nii", series), expected)
    why = refused(lambda: from_nifti(tmp_path / "wrong.nii", series))
    assert f"by its header's scl_slope {slope:g} and scl_inter {intercept:g}" in why


def test_a_niftis_scaling_is_named_where_no_structure_has_its_values(tmp_path: Path) -> None:
    series = series_of(ORIENTATIONS["axial"])
    written = nibabel.Nifti1Image(mask_of().transpose(2, 1, 0), affine_of(series))
    written.header.set_slope_inter(100.0, 0.0)
    nibabel.save(written, tmp_path / "m.nii")
    why = refused(lambda: from_nifti(tmp_path / "m.nii", series))
    assert "no structure has the value 100, 200, by its header's scl_slope 100" in why


def test_broken_and_four_dimensional_niftis_are_refused(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    path = nifti(tmp_path / "m.nii", mask, affine_of(series))
    content = path.read_bytes()
    for name, broken in (("a.nii", content[:400]), ("b.nii", b"\0" * 400), ("c.nii.gz", content)):
        (tmp_path / name).write_bytes(broken)
        refused(lambda name=name: from_nifti(tmp_path / name, series))
    four = nibabel.Nifti1Image(np.stack([mask.T] * 2, -1), affine_of(series))
    nibabel.save(four, tmp_path / "four.nii")
    assert "dimensions" in refused(lambda: from_nifti(tmp_path / "four.nii", series))
    huge = bytearray(content)
    huge[42:48] = np.array([32767] * 3, "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(huge)
    with pytest.raises(UnusableFile) as caught:
        from_nifti(tmp_path / "huge.nii", series)
    assert caught.value.reason is Reason.TOO_LARGE


def test_holes_may_be_contours_of_their_own_or_joined_by_a_keyhole(tmp_path: Path) -> None:
    series = series_of(ORIENTATIONS["oblique"])
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2:12, 2:9] = 1
    mask[2, 5:8, 4:7] = 0
    expected = from_segmentation(tmp_path, series, mask)
    assert np.array_equal(
        from_contours(tmp_path, series, structure_set(named(mask), series)), expected
    )

    def keyhole(plane: NDArray[np.bool_]) -> Iterator[FLOATS]:
        loops = sorted(borders(plane), key=np.ptp, reverse=True)
        if loops:
            outer, inner = loops
            yield np.concatenate([outer, outer[:1], inner, inner[:1]])

    dataset = structure_set(named(mask), series, keyhole)
    assert len(dataset.ROIContourSequence[0].ContourSequence) == 1
    assert np.array_equal(from_contours(tmp_path, series, dataset), expected)


def test_a_contour_that_stands_there_twice_does_not_take_itself_away(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    dataset = structure_set(named(mask), series)
    for region in dataset.ROIContourSequence:
        region.ContourSequence.extend(list(region.ContourSequence))
    assert np.array_equal(
        from_contours(tmp_path, series, dataset), from_segmentation(tmp_path, series, mask)
    )


def test_regions_are_found_by_name_or_else_by_number(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    expected = from_segmentation(tmp_path, series, mask)
    by_name = structure_set(
        {" Back": (mask == 2).astype(np.uint8), "FRONT_": (mask == 1).astype(np.uint8)}, series
    )
    assert np.array_equal(from_contours(tmp_path, series, by_name), expected)
    by_number = structure_set({"a": named(mask)["front"], "b": named(mask)["back"]}, series)
    assert np.array_equal(from_contours(tmp_path, series, by_number), expected)
    other = structure_set({"body": mask}, series)
    other.StructureSetROISequence[0].ROINumber = 9
    assert "holds the regions body; the run wants front, back" in refused(
        lambda: from_contours(tmp_path, series, other)
    )


def first_contour(dataset: FileDataset) -> FileDataset:
    return dataset.ROIContourSequence[0].ContourSequence[0]  # type: ignore[no-any-return]


def _point(dataset: FileDataset) -> None:
    first_contour(dataset).ContourGeometricType = "POINT"


def _open(dataset: FileDataset) -> None:
    first_contour(dataset).ContourGeometricType = "OPEN_PLANAR"


def _between(dataset: FileDataset) -> None:
    values = [float(v) for v in first_contour(dataset).ContourData]
    first_contour(dataset).ContourData = [str(v + 1.2 * (n % 3 == 2)) for n, v in enumerate(values)]


def _above(dataset: FileDataset) -> None:
    values = [float(v) for v in first_contour(dataset).ContourData]
    first_contour(dataset).ContourData = [str(v + 33 * (n % 3 == 2)) for n, v in enumerate(values)]


def _beside(dataset: FileDataset) -> None:
    values = [float(v) for v in first_contour(dataset).ContourData]
    first_contour(dataset).ContourData = [str(v + 99 * (n % 3 == 0)) for n, v in enumerate(values)]


def _two_points(dataset: FileDataset) -> None:
    first_contour(dataset).ContourData = first_contour(dataset).ContourData[:6]


def _odd(dataset: FileDataset) -> None:
    first_contour(dataset).ContourData = first_contour(dataset).ContourData[:8]


def _other_image(dataset: FileDataset) -> None:
    first_contour(dataset).ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _other_series(dataset: FileDataset) -> None:
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def _other_frame(dataset: FileDataset) -> None:
    for region in dataset.StructureSetROISequence:
        region.ReferencedFrameOfReferenceUID = "1.2.3"


def _both_types(dataset: FileDataset) -> None:
    contours = dataset.ROIContourSequence[0].ContourSequence
    again = deepcopy(contours[0])
    again.ContourGeometricType = "CLOSEDPLANAR_XOR"
    contours.append(again)


def _another_slice(dataset: FileDataset) -> None:
    contours = dataset.ROIContourSequence[0].ContourSequence
    one, other = contours[0], contours[-1]
    one.ContourImageSequence = other.ContourImageSequence


def _cut_short(dataset: FileDataset) -> None:
    first_contour(dataset).ContourData = first_contour(dataset).ContourData[:-3]


def _one_number(dataset: FileDataset) -> None:
    dataset.StructureSetROISequence[1].ROINumber = 1


def _not_planar(dataset: FileDataset) -> None:
    first_contour(dataset).ContourGeometricType = "OPEN_NONPLANAR"


def _moved(dataset: FileDataset) -> None:
    first_contour(dataset).ContourOffsetVector = [0.0, 0.0, 3.3]


def _nothing(dataset: FileDataset) -> None:
    del dataset.StructureSetROISequence


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_point, "type POINT"),
        (_open, "type OPEN_PLANAR"),
        (_not_planar, "type OPEN_NONPLANAR"),
        (_both_types, "CLOSED_PLANAR and CLOSEDPLANAR_XOR"),
        (_moved, "Contour Offset Vector"),
        (_between, "not lie on one slice"),
        (_above, "outside the volume"),
        (_beside, "outside the images"),
        (_two_points, "2 points"),
        (_odd, "ValueError"),
        (_other_image, "not in the series"),
        (_another_slice, "names slice 4 and lies on slice 2"),
        (_cut_short, "that holds"),
        (_one_number, "two regions of one number"),
        (_other_series, "drawn on another series"),
        (_other_frame, "another frame of reference"),
        (_nothing, "AttributeError"),
    ],
)
def test_contours_that_do_not_fit_the_series_are_refused(
    tmp_path: Path, change: Callable[[FileDataset], None], why: str
) -> None:
    series = series_of(ORIENTATIONS["axial"])
    dataset = structure_set(named(mask_of()), series)
    change(dataset)
    assert why in refused(lambda: from_contours(tmp_path, series, dataset))


def test_contours_that_name_no_images_at_all_are_refused(tmp_path: Path) -> None:
    series = series_of(ORIENTATIONS["axial"])
    dataset = structure_set(named(mask_of()), series)
    del dataset.ReferencedFrameOfReferenceSequence
    path = save(tmp_path / "rt", dataset)
    drawn = drawn_on(series)
    assert read_structure_set(path, drawn, PARTS).any()  # by its frame of reference
    nameless = replace(drawn, frame_of_reference="")
    assert "names neither" in refused(lambda: read_structure_set(path, nameless, PARTS))


def test_the_contours_of_a_region_may_stand_in_several_items(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["oblique"]), mask_of()
    dataset = structure_set(named(mask), series)
    items = dataset.ROIContourSequence
    items.append(deepcopy(items[0]))
    items[0].ContourSequence = items[0].ContourSequence[:2]
    items[2].ContourSequence = items[2].ContourSequence[2:]
    assert np.array_equal(
        from_contours(tmp_path, series, dataset), from_segmentation(tmp_path, series, mask)
    )


def test_a_region_without_contours_is_nowhere(tmp_path: Path) -> None:
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    dataset = structure_set(named(mask), series)
    del dataset.ROIContourSequence[1]
    found = from_contours(tmp_path, series, dataset)
    assert set(np.unique(found)) == {0, 1}


def squares(series: Sequence[FileDataset], kind: str, *offsets: float) -> FileDataset:
    """Return a structure set of squares of 4 voxels on one slice, that far from each other."""

    def drawn(_plane: NDArray[np.bool_]) -> Iterator[FLOATS]:
        if _plane.any():
            for offset in offsets:
                low, high = 1.5 + offset, 5.5 + offset
                yield np.array([[low, low], [low, high], [high, high], [high, low]])

    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2, 2] = 1
    dataset = structure_set({"front": mask}, series, drawn)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = kind
    return dataset


@pytest.mark.parametrize(("kind", "voxels"), [("CLOSED_PLANAR", 28), ("CLOSEDPLANAR_XOR", 24)])
def test_contours_of_a_region_that_cross_are_combined_as_their_type_says(
    tmp_path: Path, kind: str, voxels: int
) -> None:
    """Two squares of 16 voxels that share 4 (PS3.3 C.8.8.6.3)."""
    series = series_of(ORIENTATIONS["oblique"])
    found = from_contours(tmp_path, series, squares(series, kind, 0.0, 2.0))
    assert int((found == 1).sum()) == voxels


def test_a_region_whose_contours_hold_no_voxels_centre_is_refused_not_healthy(
    tmp_path: Path,
) -> None:
    series = series_of(ORIENTATIONS["axial"])
    dataset = structure_set(
        named(mask_of()),
        series,
        lambda _plane: iter([np.array([[3.2, 3.2], [3.2, 3.8], [3.8, 3.8], [3.8, 3.2]])]),
    )
    with pytest.raises(UnusableFile) as caught:
        from_contours(tmp_path, series, dataset)
    assert caught.value.reason is Reason.MASK_LOST


def told_by(read: Callable[[Tell], object]) -> list[tuple[Reason, str]]:
    told: list[UnusableFile] = []
    read(told.append)
    return [(one.reason, one.detail) for one in told]


def test_structures_under_other_names_or_numbers_are_told(tmp_path: Path) -> None:
    """Beside one that matches, a lesion by another name would count as not drawn."""
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    drawn = drawn_on(series)

    def contours(*names: str) -> list[tuple[Reason, str]]:
        masks = {name: (mask == n).astype(np.uint8) for n, name in enumerate(names, 1)}
        path = save(tmp_path / "rt", structure_set(masks, series))
        return told_by(lambda tell: read_structure_set(path, drawn, PARTS, tell))

    def segments(*numbers: int) -> list[tuple[Reason, str]]:
        masks = {number: (mask == n).astype(np.uint8) for n, number in enumerate(numbers, 1)}
        path = save(tmp_path / "seg", segmentation(masks, series))
        read = partial(read_segmentation, path, drawn.shape, drawn.geometry, PARTS)
        return told_by(lambda tell: read(tell=tell))

    assert not contours("front", "back")
    assert not contours("front")
    ((reason, detail),) = contours("front", "back_1")
    assert reason is Reason.MASK_NAMES
    assert "nothing for back; of no structure are 2 back_1" in detail
    ((_, detail),) = contours("BODY", "lung")
    assert "by number front is 1 BODY, back is 2 lung" in detail
    assert not segments(1, 2)
    ((reason, detail),) = segments(1, 7)
    assert reason is Reason.MASK_NAMES
    assert "nothing for back; of no structure are 7" in detail


def test_a_structure_that_lies_wholly_under_a_later_one_is_told(tmp_path: Path) -> None:
    """As where the configuration names the organ after its tumour."""
    series = series_of(ORIENTATIONS["axial"])
    organ = np.zeros(SHAPE, np.uint8)
    organ[1:4, 2:9, 2:9] = 1
    tumour = np.zeros(SHAPE, np.uint8)
    tumour[2, 4:6, 4:6] = 1
    drawn = drawn_on(series)
    seg = save(tmp_path / "seg", segmentation({1: organ, 2: tumour}, series))
    rt = save(tmp_path / "rt", structure_set({"organ": organ, "tumour": tumour}, series))
    right, wrong = {"organ": (1,), "tumour": (2,)}, {"tumour": (2,), "organ": (1,)}
    for structures, said in ((right, []), (wrong, [Reason.MASK_COVERED])):
        read = partial(read_segmentation, seg, drawn.shape, drawn.geometry, structures)
        assert [r for r, _ in told_by(lambda tell, read=read: read(tell=tell))] == said
        read_rt = partial(read_structure_set, rt, drawn, structures)
        assert [r for r, _ in told_by(read_rt)] == said


def test_a_structure_that_resampling_passes_over_is_refused_and_a_part_is_told(
    tmp_path: Path,
) -> None:
    """Slices lie 3.3 mm apart; a lesion of 1 mm between two of them is on neither."""
    series = series_of(ORIENTATIONS["axial"])
    affine = affine_of(series) @ np.diag([1, 1, 1 / 3, 1])
    fine = np.zeros((13, *SHAPE[1:]), np.uint8)
    fine[:, 2:6, 2:5] = 1
    drawn = drawn_on(series)
    lesion = fine.copy()
    lesion[4:6, 8:10, 6:9] = 2
    path = nifti(tmp_path / "m.nii", lesion, affine)
    with pytest.raises(UnusableFile) as caught:
        from_nifti(path, series, resample=True)
    assert caught.value.reason is Reason.MASK_LOST
    assert "back: 12 pixels" in caught.value.detail
    lesion[9, 8:10, 6:9] = 2
    path = nifti(tmp_path / "n.nii", lesion, affine)
    read = partial(read_nifti, path, drawn.shape, drawn.geometry, PARTS, resample=True)
    ((reason, detail),) = told_by(lambda tell: read(tell=tell))
    assert reason is Reason.MASK_CUT
    assert "back: 1 of 2 parts (12 of 18 pixels)" in detail
    path = nifti(tmp_path / "o.nii", fine, affine)
    assert not told_by(
        lambda tell: read_nifti(path, drawn.shape, drawn.geometry, PARTS, resample=True, tell=tell)
    )


def test_negative_values_of_a_nifti_are_no_labels(tmp_path: Path) -> None:
    """255 in a type of 8 bits with a sign is -1, and was background."""
    series, mask = series_of(ORIENTATIONS["axial"]), mask_of()
    signed = np.where(mask == 2, -1, mask).astype(np.int8)
    path = nifti(tmp_path / "m.nii", signed, affine_of(series))
    assert "the value -1" in refused(lambda: from_nifti(path, series))


def slowly_inside(outline: FLOATS, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Count for each voxel the edges that a ray to the right of its centre crosses."""
    found = np.zeros(shape, np.bool_)
    for row, column in np.ndindex(*shape):
        crossings = 0
        for (r0, c0), (r1, c1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if (r0 <= row) != (r1 <= row):
                crossings += c0 + (row - r0) / (r1 - r0) * (c1 - c0) > column
        found[row, column] = crossings % 2 == 1
    return found


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-1, 9), st.floats(-1, 9)), min_size=3, max_size=12))
def test_polygons_are_filled_as_a_slow_count_of_crossings_fills_them(
    points: list[tuple[float, float]],
) -> None:
    # An edge that passes exactly through a centre may be rounded either way.
    outline = np.array(points) + 0.0123
    assert np.array_equal(windings(outline, (8, 9)) % 2 == 1, slowly_inside(outline, (8, 9)))


@pytest.mark.processes
def test_the_structure_sets_of_these_tests_are_dicom(tmp_path: Path) -> None:
    path = save(tmp_path / "rt", structure_set(named(mask_of()), series_of(oblique(0.3, -0.4))))
    ended = subprocess.run(
        [program("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    assert "RTStructureSet" in ended.stderr
    assert not [line for line in ended.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("kind", ["nii.gz", "rt"])
def test_a_cohort_takes_its_masks_from_any_of_these_files(tmp_path: Path, kind: str) -> None:
    site, rows = tmp_path / "site", []
    for number in range(3):
        patient, mask = f"P{number}", mask_of(number)
        series = series_of(ORIENTATIONS["axial"])
        for plane, dataset in enumerate(series):
            dataset.PatientID, dataset.SeriesInstanceUID = patient, uid("series", number)
            dataset.StudyInstanceUID = uid("study", number)
            dataset.SOPInstanceUID = uid("image", number, plane)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            save(site / patient / f"{plane}.dcm", dataset)
        name = f"{patient}/mask.{kind}"
        if kind == "rt":
            save(site / name, structure_set(named(mask), series))
        else:
            nifti(site / name, mask, affine_of(series))
        rows.append({"PatientID": patient, "mask": name})
    rows.append({"PatientID": "P3", "mask": "none.nii"})
    write_labels(site, rows)
    config = config_of(
        "{kind: segmentation, structures: {front: [1], back: [2]}}",
        "{images: {size: [8, 16, 16], fit: letterbox}, smallest_cohort: 1}",
        "unet",
    )
    cohort = load(site, config, tmp_path / "cache")
    assert len(cohort.items) == 3
    assert set(cohort.items.target.unique().tolist()) == {0, 1, 2}
    assert {p.reason for p in cohort.unusable} == {Reason.NO_IMAGE}


def test_masks_for_flat_images_that_need_a_place_are_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    save(site / "P1.dcm", image(noise(16, 16), "P1"))
    series = series_of(ORIENTATIONS["axial"])
    nifti(site / "m.nii", mask_of(), affine_of(series))
    for name in ("m.nii", "absent.png", "../out.nii", ""):
        write_labels(site, [{"PatientID": "P1", "mask": name}])
        config = config_of(
            "{kind: segmentation, structures: {front: [1]}}",
            "{images: {size: [16, 16]}, smallest_cohort: 1}",
            "unet",
        )
        with pytest.raises(Exception, match=r"MASK_UNUSABLE|MASK_MISSING"):
            load(site, config, tmp_path / "cache")


@pytest.mark.needs_shared_data
def test_given_outlines_of_hippocampi_stay_the_same_as_nifti_and_as_contours(
    tmp_path: Path,
) -> None:
    parts = {"anterior": (1,), "posterior": (2,)}
    for folder in sorted((SHARED / "hippocampus" / "mr-alpha").iterdir())[:4]:
        if not folder.is_dir():
            continue
        series = [read_dataset(path) for path in sorted(folder.glob("[0-9]*.dcm"))]
        series.sort(key=lambda d: float(d.ImagePositionPatient[2]))
        drawn = drawn_on(series)
        expected = read_segmentation(folder / "seg.dcm", drawn.shape, drawn.geometry, parts)
        assert set(np.unique(expected)) == {0, 1, 2}
        lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine = (lps_to_ras @ drawn.geometry.affine)[:, [2, 1, 0, 3]]
        path = nifti(tmp_path / "m.nii.gz", expected, affine)
        found = read_nifti(path, drawn.shape, drawn.geometry, parts, resample=False)
        assert np.array_equal(found, expected)
        dataset = structure_set(
            {name: (expected == n).astype(np.uint8) for n, name in enumerate(parts, 1)},
            [_as_seen(series[0], drawn, level) for level in range(drawn.shape[0])],
        )
        for region in dataset.ROIContourSequence:
            for contour in region.ContourSequence:
                del contour.ContourImageSequence
        path = save(tmp_path / "rt", dataset)
        assert np.array_equal(read_structure_set(path, drawn, parts), expected)


def _as_seen(first: FileDataset, drawn: DrawnVolume, level: int) -> FileDataset:
    """Return a slice as the volume holds it, after it was turned the way viewers show it."""
    affine = drawn.geometry.affine
    _, rows, columns = drawn.geometry.spacing
    found = item(
        PatientID=first.PatientID,
        StudyInstanceUID=first.StudyInstanceUID,
        SeriesInstanceUID=first.SeriesInstanceUID,
        SOPClassUID=first.SOPClassUID,
        SOPInstanceUID=first.SOPInstanceUID,
        ImagePositionPatient=(affine @ [level, 0, 0, 1])[:3].tolist(),
        ImageOrientationPatient=[*(affine[:3, 2] / columns), *(affine[:3, 1] / rows)],
        PixelSpacing=[rows, columns],
    )
    if "FrameOfReferenceUID" in first:
        found.FrameOfReferenceUID = first.FrameOfReferenceUID
    return found  # type: ignore[return-value]  # as much of a file as a writer looks at
