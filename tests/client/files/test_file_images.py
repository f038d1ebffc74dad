"""Images that the table names as files: the same tensors as DICOM, or a reason."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image as Pillow

from client.cohort.left_out import LeftOut
from client.cohort.site_cohort import SiteCohort
from client.dicom.reasons import Reason
from client.inference.study_reading import SiteRows, read_study
from common.config.run_config import RunConfig
from common.platform.errors import CohortError, ConfigurationError
from tests.client.dicom_files import config_of, image, noise, placed, save, write_labels
from tests.client.dicom_files import load as load_site

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
#: Cosines of rows' and columns' direction, as scanners write them, and one oblique.
PLANES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial from above": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "sagittal transposed": (0, 0, -1, 0, 1, 0),
    "oblique": (0.96, 0.28, 0.0, -0.28, 0.96, 0.0),
}
AXES = [
    (*signs,)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for signs in itertools.product(*order)
]
VOLUME = noise(8, 14, 11, seed=1, dtype="int16", top=2000)
SPACING, GAP = (0.75, 0.9), 2.5


def run(
    images: str = "size: [8, 12, 12], spacing: [2.5, 1, 1], fit: crop", **more: str
) -> RunConfig:
    return config_of(cohort=f"{{images: {{{images}, format: files}}}}", **more)


def load(site: Path, config: RunConfig, left_out: LeftOut | None = None) -> SiteCohort:
    return load_site(site, config, site.parent / f"cache of {site.name}", left_out)


def reasons(cohort: SiteCohort) -> dict[str, Reason]:
    return {one.what: one.reason for one in cohort.unusable}


def refused(site: Path, config: RunConfig) -> tuple[Reason, str]:
    """Return why the one row of a site is left out."""
    with pytest.raises(CohortError) as found:
        load(site, config)
    (problem,) = found.value.unusable  # type: ignore[attr-defined]  # NobodyUsable
    return problem.reason, f"{problem.what} {problem.detail}"


def affine_of(cosines: tuple[float, ...], spacing: tuple[float, float] = SPACING) -> np.ndarray:
    """Return index (column, row, slice) of DICOM -> mm (RAS)."""
    across, down = np.array(cosines[:3]), np.array(cosines[3:])
    found = np.eye(4)
    found[:3, 0], found[:3, 1] = across * spacing[1], down * spacing[0]
    found[:3, 2] = np.cross(across, down) * GAP
    found[:3, 3] = (-31.2, 14.7, 103.25)
    return _LPS @ found


def nifti(values: np.ndarray, affine: np.ndarray) -> Any:
    return nibabel.Nifti1Image(values.transpose(2, 1, 0), affine)


def oblique(first: float, second: float) -> tuple[float, ...]:
    """Return cosines that are turned out of the axial plane by two angles."""
    a, b, c, d = np.cos(first), np.sin(first), np.cos(second), np.sin(second)
    return (a, b, 0.0, -b * c, a * c, d)


def write_dicom(site: Path, cosines: tuple[float, ...], spacing: tuple[float, float]) -> None:
    affine = _LPS @ affine_of(cosines, spacing)
    for number, plane in enumerate(VOLUME):
        corner = affine[:3, 3] + affine[:3, 2] * number
        save(site / f"{number}.dcm", placed(image(plane, number=number), corner, cosines, spacing))
    write_labels(site, [{"PatientID": "P1", "ill": 1}])


@pytest.mark.parametrize("plane", PLANES)
def test_a_volume_is_the_same_in_dicom_and_in_every_order_of_a_files_axes(
    tmp_path: Path, plane: str
) -> None:
    write_dicom(tmp_path / "dicom", PLANES[plane], SPACING)
    images = "size: [8, 12, 12], spacing: [2.5, 1, 1], fit: crop"
    expected = load(tmp_path / "dicom", config_of(cohort=f"{{images: {{{images}}}}}"))
    stored = nifti(VOLUME, affine_of(PLANES[plane]))
    site, rows = tmp_path / "files", []
    for number, axes in enumerate(AXES):
        turn = ornt_transform(nibabel.io_orientation(stored.affine), axcodes2ornt(axes))
        name = f"{number}.nii{'.gz' * (number % 2)}"
        site.mkdir(exist_ok=True)
        nibabel.save(stored.as_reoriented(turn), site / name)
        rows.append({"PatientID": f"P{number}", "image": name, "ill": number % 2})
    write_labels(site, rows)
    found = load(site, run(images))
    assert not found.unusable
    assert len(found.items) == 48
    for tensor in found.items.image:
        torch.testing.assert_close(tensor, expected.items.image[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("plane", ["axial", "sagittal", "sagittal transposed"])
def test_cubes_follow_the_axis_that_the_header_says_or_the_last(tmp_path: Path, plane: str) -> None:
    global GAP  # noqa: PLW0603  # a grid of cubes, for this test alone
    usual, GAP = GAP, 1.0
    try:
        write_dicom(tmp_path / "dicom", PLANES[plane], (1.0, 1.0))
        stored = nifti(VOLUME, affine_of(PLANES[plane], (1.0, 1.0)))
    finally:
        GAP = usual
    images = "size: [8, 12, 12], fit: letterbox"
    expected = load(tmp_path / "dicom", config_of(cohort=f"{{images: {{{images}}}}}"))
    site = tmp_path / "files"
    site.mkdir()
    nibabel.save(stored, site / "last.nii")
    stored.header.set_dim_info(slice=2)
    turn = ornt_transform(nibabel.io_orientation(stored.affine), axcodes2ornt("SPL"))
    nibabel.save(stored.as_reoriented(turn), site / "said.nii")
    write_labels(site, [{"PatientID": n, "image": f"{n}.nii", "ill": 1} for n in ("last", "said")])
    for tensor in load(site, run(images)).items.image:
        torch.testing.assert_close(tensor, expected.items.image[0], atol=1e-5, rtol=0)


def test_slices_of_a_volume_are_items_of_a_run_in_two_dimensions(tmp_path: Path) -> None:
    write_dicom(tmp_path / "dicom", PLANES["axial"], SPACING)
    expected = load(tmp_path / "dicom", config_of(cohort="{images: {size: [16, 16]}}"))
    (tmp_path / "files").mkdir()
    nibabel.save(nifti(VOLUME, affine_of(PLANES["axial"])), tmp_path / "files" / "a.nii")
    write_labels(tmp_path / "files", [{"PatientID": "P1", "image": "a.nii", "ill": 1}])
    found = load(tmp_path / "files", run("size: [16, 16]"))
    order = torch.argsort(expected.items.image.flatten(1).sum(1))
    ours = torch.argsort(found.items.image.flatten(1).sum(1))
    torch.testing.assert_close(found.items.image[ours], expected.items.image[order])


def test_scaled_values_and_other_types_are_what_the_header_says(tmp_path: Path) -> None:
    affine = affine_of(PLANES["axial"])
    kinds = {
        "int16": VOLUME,
        "uint8": (VOLUME % 250).astype(np.uint8),
        "int32": VOLUME.astype(np.int32),
        "float64": VOLUME.astype(np.float64),
        "big": VOLUME.astype(">i2"),
    }
    rows = []
    for name, values in kinds.items():
        made = nifti(values, affine)
        if name == "int16":
            made.header.set_slope_inter(2.0, -1024.0)
        nibabel.save(made, tmp_path / f"{name}.nii.gz")
        rows.append({"PatientID": name, "image": f"{name}.nii.gz", "ill": 1})
    site = tmp_path / "site"
    site.mkdir()
    for row in rows:
        (tmp_path / row["image"]).rename(site / row["image"])
    write_labels(site, rows)
    config = run("size: [8, 14, 11], intensity: window, window: [-2000, 4000], fit: crop")
    found = load(site, config)
    for row, tensor in zip(found.items.pseudonyms, found.items.image, strict=True):
        truth = np.asarray(nibabel.load(site / f"{row}.nii.gz").get_fdata()).transpose(2, 1, 0)
        values = tensor[0].numpy() * 6000 - 2000
        # Axial slices lie as viewers show them here already.
        np.testing.assert_allclose(values, truth, atol=1e-2)


def broken_niftis() -> dict[str, tuple[object, Reason]]:
    volume, affine = VOLUME, affine_of(PLANES["axial"])
    several = nibabel.Nifti1Image(np.stack([volume.transpose(2, 1, 0)] * 3, axis=3), affine)
    bare = nibabel.Nifti1Image(volume.transpose(2, 1, 0), None)
    bare.header.set_sform(None, 0)
    bare.header.set_qform(None, 0)
    skewed = affine.copy()
    skewed[:3, 0] += affine[:3, 1] * 0.3
    holes = volume.astype(np.float32)
    holes[0, 0, 0] = np.nan
    colours = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    twice = nifti(volume, affine)
    twice.header.set_qform(np.diag([3.0, 3, 3, 1]), 1)
    return {
        "four axes": (several, Reason.MULTI_PHASE),
        "no orientation": (bare, Reason.NO_GEOMETRY),
        "skewed": (nifti(volume, skewed), Reason.NO_GEOMETRY),
        "not numbers": (nifti(holes, affine), Reason.NOT_FINITE),
        "one value": (nifti(np.ones_like(volume), affine), Reason.BLANK),
        "one slice": (nifti(volume[:1], affine), Reason.TOO_FEW_SLICES),
        "complex": (nifti(volume.astype(np.complex64), affine), Reason.DECODE_ERROR),
        "colours": (nibabel.Nifti1Image(colours, affine), Reason.DECODE_ERROR),
        "two affines": (twice, Reason.NO_GEOMETRY),
    }


@pytest.mark.parametrize("fault", broken_niftis())
def test_a_volume_that_cannot_be_read_in_one_way_has_a_reason(tmp_path: Path, fault: str) -> None:
    made, reason = broken_niftis()[fault]
    nibabel.save(made, tmp_path / "a.nii")
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.nii", "ill": 1}])
    assert refused(tmp_path, run())[0] is reason


def test_headers_that_claim_too_much_fill_no_memory(tmp_path: Path) -> None:
    nibabel.save(nifti(VOLUME, affine_of(PLANES["axial"])), tmp_path / "a.nii")
    whole = bytearray((tmp_path / "a.nii").read_bytes())
    (tmp_path / "cut.nii").write_bytes(whole[:-500])
    with gzip.open(tmp_path / "cut.nii.gz", "wb") as file:
        file.write(whole[:-500])
    struct.pack_into("<4h", whole, 40, 3, 30000, 30000, 30000)
    (tmp_path / "huge.nii").write_bytes(whole)
    struct.pack_into("<4h", whole, 40, 3, 11, 14, 8)
    struct.pack_into("<f", whole, 108, 2e9)
    (tmp_path / "far.nii").write_bytes(whole)
    (tmp_path / "empty.nii").touch()
    (tmp_path / "text.nii").write_text("no volume " * 100)
    save(tmp_path / "slice.dcm", image(noise(8, 8)))
    expected = {
        "cut.nii": Reason.TRUNCATED_PIXELS,
        "cut.nii.gz": Reason.TRUNCATED_PIXELS,
        "huge.nii": Reason.TOO_LARGE,
        "far.nii": Reason.TOO_LARGE,
        "empty.nii": Reason.EMPTY_FILE,
        "text.nii": Reason.FILE_UNKNOWN,
        "slice.dcm": Reason.FILE_UNKNOWN,
    }
    for name, reason in expected.items():
        write_labels(tmp_path, [{"PatientID": "P1", "image": name, "ill": 1}])
        found, detail = refused(tmp_path, run())
        assert found is reason, name
        assert str(tmp_path) not in detail


def damaged(whole: bytes) -> dict[str, tuple[bytes, Reason]]:
    """Return files that are no longer what was written, though each has all of its voxels."""
    packed = gzip.compress(whole, 1)
    middle, end = bytearray(packed), bytearray(packed)
    middle[len(packed) // 2] ^= 0x11
    end[-8] ^= 0xFF  # of the checksum
    padding = gzip.compress(b"\0" * (65 << 20))
    return {
        "middle.nii.gz": (bytes(middle), Reason.DECODE_ERROR),
        "checksum.nii.gz": (bytes(end), Reason.DECODE_ERROR),
        "no_checksum.nii.gz": (packed[:-8], Reason.TRUNCATED_PIXELS),
        "garbage.nii.gz": (packed + b"more", Reason.DECODE_ERROR),
        "two.nii.gz": (packed + packed, Reason.DECODE_ERROR),
        "bomb.nii.gz": (packed + padding, Reason.TOO_LARGE),
        "two.nii": (whole + whole, Reason.DECODE_ERROR),
    }


def test_a_file_is_read_to_its_end_and_refused_where_it_is_damaged(tmp_path: Path) -> None:
    nibabel.save(nifti(VOLUME, affine_of(PLANES["axial"])), tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    for name, (content, reason) in damaged(whole).items():
        (tmp_path / name).write_bytes(content)
        write_labels(tmp_path, [{"PatientID": "P1", "image": name, "ill": 1}])
        assert refused(tmp_path, run())[0] is reason, name


def test_members_of_an_archive_are_one_file_and_zeros_may_follow(tmp_path: Path) -> None:
    nibabel.save(nifti(VOLUME, affine_of(PLANES["axial"])), tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    parts = gzip.compress(whole[:700]) + gzip.compress(whole[700:]) + gzip.compress(b"\0" * 900)
    (tmp_path / "b.nii.gz").write_bytes(parts + b"\0" * 512)  # as tapes pad
    rows = [{"PatientID": n, "image": n, "ill": 1} for n in ("a.nii", "b.nii.gz")]
    write_labels(tmp_path, rows)
    first, second = load(tmp_path, run()).items.image
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_voxels_begin_behind_the_header(tmp_path: Path, kind: Any) -> None:
    """Some programs take 0 for the header's end, some read the header as voxels."""
    made = kind(VOLUME.transpose(2, 1, 0), affine_of(PLANES["axial"]))
    whole = bytearray(made.to_bytes())
    place, form, first = (108, "<f", 352) if kind is nibabel.Nifti1Image else (168, "<q", 544)
    for offset in (0, 16, first - 1, first - 352 + 348, -first):
        struct.pack_into(form, whole, place, offset)
        (tmp_path / "a.nii").write_bytes(whole)
        write_labels(tmp_path, [{"PatientID": "P1", "image": "a.nii", "ill": 1}])
        reason, detail = refused(tmp_path, run())
        assert reason is Reason.DECODE_ERROR
        assert f"expected at least {first}" in detail


def test_a_header_whose_voxels_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    nibabel.save(nifti(VOLUME, affine_of(PLANES["axial"])), tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii").write_bytes(whole[:344] + b"ni1\0" + whole[348:])
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.nii", "ill": 1}])
    assert refused(tmp_path, run())[0] is Reason.FILE_UNKNOWN


def test_an_extension_of_the_header_is_passed_over_unread(tmp_path: Path) -> None:
    made = nifti(VOLUME, affine_of(PLANES["axial"]))
    nibabel.save(made, tmp_path / "a.nii")
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 100))
    whole = bytearray(made.to_bytes())
    struct.pack_into("<i", whole, 352, -1)  # its length, which programs would read by
    (tmp_path / "b.nii").write_bytes(whole)
    write_labels(tmp_path, [{"PatientID": n, "image": f"{n}.nii", "ill": 1} for n in "ab"])
    first, second = load(tmp_path, run()).items.image
    assert torch.equal(first, second)


@pytest.mark.parametrize("unit", [1, 2, 3, 0, 5])
def test_lengths_are_in_the_headers_unit_or_in_millimetres(tmp_path: Path, unit: int) -> None:
    affine = affine_of(PLANES["oblique"])
    nibabel.save(nifti(VOLUME, affine), tmp_path / "a.nii")
    part = {1: 1000.0, 3: 0.001}.get(unit, 1.0)  # metres, microns; 5 is no unit
    other = nifti(VOLUME, np.diag([1 / part, 1 / part, 1 / part, 1.0]) @ affine)
    other.header["xyzt_units"] = unit + 8  # seconds
    nibabel.save(other, tmp_path / "b.nii")
    write_labels(tmp_path, [{"PatientID": n, "image": f"{n}.nii", "ill": 1} for n in "ab"])
    first, second = load(tmp_path, run()).items.image
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def test_a_plane_is_one_slice(tmp_path: Path) -> None:
    affine = affine_of(PLANES["axial"], (2.0, 1.0)) @ np.diag([1, 1, 0.8, 1])  # 2 mm a slice
    plane = VOLUME[3]
    nibabel.save(nibabel.Nifti1Image(plane.T, affine), tmp_path / "a.nii")
    nibabel.save(nifti(plane[None], affine), tmp_path / "b.nii.gz")
    write_labels(tmp_path, [{"PatientID": n, "image": n, "ill": 1} for n in ("a.nii", "b.nii.gz")])
    found = load(
        tmp_path, run("size: [14, 11], intensity: window, window: [0, 2000], fit: stretch")
    )
    assert not found.unusable
    for tensor in found.items.image:
        np.testing.assert_allclose(tensor[0].numpy() * 2000, plane, atol=0.01)
    with pytest.raises(CohortError) as caught:
        load(tmp_path, run())
    problems = caught.value.unusable  # type: ignore[attr-defined]  # NobodyUsable
    assert {one.reason for one in problems} == {Reason.TOO_FEW_SLICES}


def test_an_exact_half_of_a_voxel_is_rounded_as_in_dicom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """35 slices of 3 mm are 52.5 of 2 mm; single precision puts that on either side."""
    monkeypatch.setitem(globals(), "GAP", 3.0)
    monkeypatch.setitem(globals(), "VOLUME", noise(35, 14, 11, dtype="int16", top=2000))
    images = "size: [54, 16, 16], spacing: [2, 1, 1], fit: crop"
    for number in range(6):
        first, second = np.random.default_rng(number).uniform(-0.9, 0.9, 2)
        cosines = tuple(float(f"{cosine:.9f}") for cosine in oblique(first, second))
        site = tmp_path / f"dicom{number}"
        write_dicom(site, cosines, (1.0, 1.0))
        expected = load(site, config_of(cohort=f"{{images: {{{images}}}}}")).items.image
        site = tmp_path / f"files{number}"
        site.mkdir()
        nibabel.save(nifti(VOLUME, affine_of(cosines, (1.0, 1.0))), site / "a.nii")
        write_labels(site, [{"PatientID": "P1", "image": "a.nii", "ill": 1}])
        torch.testing.assert_close(load(site, run(images)).items.image, expected, atol=1e-4, rtol=0)


# --- pictures ----------------------------------------------------------------------------


GREY, COLOURS = noise(12, 16, dtype="uint8", top=250), noise(12, 16, 3, dtype="uint8", top=250)


def shown(site: Path, name: str, channels: int = 1) -> np.ndarray:
    """Return what a run sees of one picture, in the file's own values."""
    write_labels(site, [{"PatientID": "P1", "image": name, "ill": 1}])
    window = "intensity: window, window: [0, 65535]"
    cohort = load(site, run(f"size: [12, 16], channels: {channels}, {window}"))
    found: np.ndarray = np.rint(cohort.items.image[0].numpy() * 65535)
    return found[0] if channels == 1 else found.transpose(1, 2, 0)


def test_pictures_have_the_values_of_their_files(tmp_path: Path) -> None:
    deep = noise(12, 16, seed=3, top=65000)
    for name in ("grey.png", "grey.tif"):
        Pillow.fromarray(GREY).save(tmp_path / name)
        assert np.array_equal(shown(tmp_path, name), GREY)
    for name in ("deep.png", "deep.tif"):
        Pillow.fromarray(deep).save(tmp_path / name)
        assert np.array_equal(shown(tmp_path, name), deep)
    Pillow.fromarray(COLOURS).save(tmp_path / "colours.png")
    assert np.array_equal(shown(tmp_path, "colours.png", 3), COLOURS)
    Pillow.fromarray(GREY > 100).save(tmp_path / "two.png")
    assert np.array_equal(shown(tmp_path, "two.png"), (GREY > 100) * 255)
    few = Pillow.fromarray(COLOURS).quantize(16)
    few.save(tmp_path / "palette.png")
    assert np.array_equal(shown(tmp_path, "palette.png", 3), np.asarray(few.convert("RGB")))
    Pillow.fromarray(np.dstack([COLOURS, np.full((12, 16), 255, np.uint8)])).save(
        tmp_path / "opaque.png"
    )
    assert np.array_equal(shown(tmp_path, "opaque.png", 3), COLOURS)
    Pillow.fromarray(GREY).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(shown(tmp_path, "a.jpg") - GREY).max() <= 3


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "lzw.tif"])
def test_a_picture_is_turned_as_it_says_or_refused(tmp_path: Path, turn: int, ending: str) -> None:
    """The truth is numpy's: row and column that each orientation puts at the top left."""
    upright = GREY if turn < 5 else GREY[:12, :12]
    turned = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: np.rot90,  # the file is turned back by a quarter to the left
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }[turn]
    upright = np.repeat(np.repeat(upright, 2, 0), 2, 1) // 4 * 4 if ending == "jpg" else upright
    exif = Pillow.Exif()
    exif[0x0112] = turn
    more = {"compression": "tiff_lzw"} if ending == "lzw.tif" else {}
    Pillow.fromarray(np.ascontiguousarray(turned(upright))).save(
        tmp_path / f"a.{ending}", exif=exif, **more
    )
    write_labels(tmp_path, [{"PatientID": "P1", "image": f"a.{ending}", "ill": 1}])
    rows, columns = upright.shape
    config = run(f"size: [{rows}, {columns}], intensity: window, window: [0, 65535]")
    if ending.endswith("tif") and turn >= 5:
        assert refused(tmp_path, config)[0] is Reason.PICTURE_UNCLEAR
        return
    found = np.rint(load(tmp_path, config).items.image[0, 0].numpy() * 65535)
    assert np.abs(found - upright).max() <= (60 if ending == "jpg" else 0)
    assert np.corrcoef(found.flatten(), upright.flatten())[0, 1] > 0.99


def unclear(folder: Path) -> Mapping[str, Reason]:
    """Write pictures that programs read differently, or that are none; return their reasons."""
    Pillow.fromarray(COLOURS).convert("CMYK").save(folder / "cmyk.jpg")
    Pillow.fromarray(COLOURS).convert("CMYK").save(folder / "cmyk.tif")
    Pillow.fromarray(COLOURS).convert("LAB").save(folder / "lab.tif")
    half = np.dstack([COLOURS, np.full((12, 16), 128, np.uint8)])
    Pillow.fromarray(half).save(folder / "half.png")
    Pillow.fromarray(GREY).save(folder / "key.png", transparency=int(GREY[0, 0]))
    Pillow.fromarray(COLOURS).quantize(8).save(folder / "palette.png", transparency=0)
    deep = noise(12, 16, 3, top=65000)
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    frame = Pillow.fromarray(GREY)
    other = Pillow.fromarray(GREY[::-1].copy())
    frame.save(folder / "pages.tif", save_all=True, append_images=[other])
    frame.save(folder / "moves.png", save_all=True, append_images=[other])
    Pillow.fromarray(noise(12, 16)).save(folder / "white.tif", tiffinfo={262: 0})
    whole = frame.tobytes()
    frame.save(folder / "signed.tif", tiffinfo={339: 2})
    frame.save(folder / "a.bmp")
    frame.save(folder / "a.gif")
    frame.save(folder / "b.png")
    (folder / "cut.png").write_bytes((folder / "b.png").read_bytes()[:90])
    assert whole
    return {
        "cmyk.jpg": Reason.PICTURE_UNCLEAR,
        "cmyk.tif": Reason.PICTURE_UNCLEAR,
        "lab.tif": Reason.PICTURE_UNCLEAR,
        "half.png": Reason.PICTURE_UNCLEAR,
        "key.png": Reason.PICTURE_UNCLEAR,
        "palette.png": Reason.PICTURE_UNCLEAR,
        "deep.png": Reason.PICTURE_UNCLEAR,
        "pages.tif": Reason.PICTURE_UNCLEAR,
        "moves.png": Reason.PICTURE_UNCLEAR,
        "white.tif": Reason.PICTURE_UNCLEAR,
        "signed.tif": Reason.PICTURE_UNCLEAR,
        "a.bmp": Reason.FILE_UNKNOWN,
        "a.gif": Reason.FILE_UNKNOWN,
        "cut.png": Reason.DECODE_ERROR,
    }


def test_a_picture_that_programs_read_differently_is_refused(tmp_path: Path) -> None:
    for name, reason in unclear(tmp_path).items():
        write_labels(tmp_path, [{"PatientID": "P1", "image": name, "ill": 1}])
        found, detail = refused(tmp_path, run("size: [12, 16], channels: 3"))
        assert found is reason, (name, detail)
        assert name in detail


def test_a_picture_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    crc = struct.pack(">I", zlib.crc32(chunk))
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + crc
    (tmp_path / "a.png").write_bytes(bomb + struct.pack(">I", 0) + b"IDAT" + b"\0\0\0\0")
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.png", "ill": 1}])
    assert refused(tmp_path, run("size: [12, 16]"))[0] is Reason.TOO_LARGE


def test_pixels_that_are_not_square_keep_their_shape(tmp_path: Path) -> None:
    flat = np.zeros((10, 20), np.uint8)
    flat[:, 10:] = 200
    Pillow.fromarray(flat).save(tmp_path / "a.png", dpi=(200, 100))
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.png", "ill": 1}])
    found = load(tmp_path, run("size: [20, 20], intensity: window, window: [0, 255]"))
    # Twice as high as wide: 10 x 20 pixels are a square.
    assert float(found.items.image[0, 0, :, 15:].min()) > 0.5


# --- rows and files ----------------------------------------------------------------------


def picture(site: Path, name: str, seed: int = 0) -> str:
    path = site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(noise(12, 16, seed=seed, dtype="uint8", top=250)).save(path)
    return name


FLAT = "size: [12, 16]"


def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    picture(tmp_path, "secret.png")
    picture(site, "a.png")
    (site / "link.png").symlink_to(tmp_path / "secret.png")
    (site / "folder").symlink_to(tmp_path)
    (site / "inner.png").symlink_to(site / "a.png")
    os.mkfifo(site / "pipe.png")
    outside = ("../secret.png", str(tmp_path / "secret.png"), "link.png", "folder/secret.png")
    for name in outside:
        write_labels(site, [{"PatientID": "P1", "image": name, "ill": 1}])
        assert refused(site, run(FLAT))[0] is Reason.FILE_OUTSIDE, name
    for name in ("pipe.png", "none.png", "folder", "a" * 5000):
        write_labels(site, [{"PatientID": "P1", "image": name, "ill": 1}])
        assert refused(site, run(FLAT))[0] in {Reason.NO_IMAGE, Reason.FILE_OUTSIDE}, name[:9]
    write_labels(site, [{"PatientID": "P1", "image": "inner.png", "ill": 1}])
    assert len(load(site, run(FLAT)).items) == 1


def packed_chunk(kind: bytes, before: bytes, size: int) -> bytes:
    """Return a chunk of a PNG that unpacks to so many bytes."""
    body = kind + before + zlib.compress(b"\0" * size, 9)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("kind", ["zTXt", "iCCP", "iTXt"])
def test_text_of_a_picture_that_unpacks_to_megabytes_is_too_large(
    tmp_path: Path, kind: str
) -> None:
    Pillow.fromarray(noise(16, 16, dtype="uint8", top=250)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    before = b"a\0\1\0\0\0" if kind == "iTXt" else b"a\0\0"
    chunk = packed_chunk(kind.encode(), before, 50_000_000)
    end = whole.index(b"IEND") - 4
    for place in (33, end) if kind != "iCCP" else (33,):
        (tmp_path / "a.png").write_bytes(whole[:place] + chunk + whole[place:])
        write_labels(tmp_path, [{"PatientID": "P1", "image": "a.png", "ill": 1}])
        assert refused(tmp_path, run(FLAT))[0] is Reason.TOO_LARGE, place


def test_numbers_of_32_bits_are_those_of_the_file_or_refused(tmp_path: Path) -> None:
    values = noise(12, 16, dtype="uint8", top=250).astype(np.int32)
    window = "size: [12, 16], intensity: window, window: [-100, 300]"
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.tif", "ill": 1}])
    for made, signed in ((values, False), (values - 100, True)):
        write_numbers(tmp_path / "a.tif", made, signed=signed)
        found = load(tmp_path, run(window)).items.image[0, 0].numpy()
        np.testing.assert_allclose(found * 400 - 100, made, atol=0.01)
    write_numbers(tmp_path / "a.tif", values + np.iinfo(np.int32).min, signed=False)
    reason, detail = refused(tmp_path, run(window))
    assert reason is Reason.PICTURE_UNCLEAR
    assert "2147483648" in detail


def write_numbers(path: Path, words: np.ndarray, *, signed: bool) -> None:
    """Write a TIFF of 32 bits a pixel; Pillow itself writes those with a sign."""
    Pillow.fromarray(words).save(path)
    tag = struct.pack("<HHIH", 339, 3, 1, 2)
    assert path.read_bytes().count(tag) == 1
    ours = struct.pack("<HHIH", 339, 3, 1, 2 if signed else 1)
    path.write_bytes(path.read_bytes().replace(tag, ours))


def test_a_name_counts_in_either_form_of_unicode(tmp_path: Path) -> None:
    for number, (folder, name) in enumerate(itertools.product(("é", "e\u0301"), repeat=2)):
        site = tmp_path / str(number)
        (site / folder).mkdir(parents=True)
        picture(site, f"{folder}/café.png" if name == "é" else f"{folder}/cafe\u0301.png")
        for written in ("é/café.png", "e\u0301/cafe\u0301.png", "é/cafe\u0301.png"):
            write_labels(site, [{"PatientID": "P1", "image": written, "ill": 1}])
            assert len(load(site, run(FLAT)).items) == 1
        rows = [
            {"PatientID": "P1", "image": "é/café.png", "ill": 1},
            {"PatientID": "P2", "image": "é/cafe\u0301.png", "ill": 1},
        ]
        write_labels(site, rows)
        with pytest.raises(CohortError) as caught:
            load(site, run(FLAT))
        problems = caught.value.unusable  # type: ignore[attr-defined]  # NobodyUsable
        assert {one.reason for one in problems} == {Reason.PATIENT_TWO_IDS}
    site = tmp_path / "two"
    site.mkdir()
    picture(site, "a\u0301\u0323.png")  # two marks, in either order, are one letter
    picture(site, "\u1ea1\u0301.png")
    write_labels(site, [{"PatientID": "P1", "image": "a\u0323\u0301.png", "ill": 1}])
    assert refused(site, run(FLAT))[0] is Reason.NO_IMAGE
    write_labels(site, [{"PatientID": "P1", "image": "\u1ea1\u0301.png", "ill": 1}])
    assert len(load(site, run(FLAT)).items) == 1


def test_one_file_of_two_patients_is_nobodys(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path, f"{number}.png", number)
    (tmp_path / "again.png").symlink_to(tmp_path / "0.png")
    rows = [
        {"PatientID": "P1", "image": "0.png", "ill": 1},
        {"PatientID": "P2", "image": "./again.png", "ill": 0},
        {"PatientID": "P3", "image": "2.png", "ill": 0},
        {"PatientID": "P3", "image": "1.png", "ill": 0},
    ]
    write_labels(tmp_path, rows)
    found = load(tmp_path, run(FLAT))
    assert found.items.pseudonyms == ("P3",)
    assert len(found.items.image) == 2
    assert set(reasons(found).values()) == {Reason.PATIENT_TWO_IDS}
    private = parse_private(run(FLAT))
    assert load(tmp_path, private).items.pseudonyms == ("P1", "P2", "P3")


def parse_private(config: RunConfig) -> RunConfig:
    privacy = {"unit": "patient", "epsilon": 3.0, "delta": 1e-5, "public_patients": {"s": 3}}
    return RunConfig.model_validate({**config.model_dump(mode="json"), "privacy": privacy})


def test_each_row_is_told_once_and_withdrawn_patients_not_at_all(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    rows = [
        {"PatientID": "P1", "image": "a.png", "ill": 1},
        {"PatientID": "P2", "image": "", "ill": 1},
        {"PatientID": "P3", "image": "none.png", "ill": 1},
        {"PatientID": "", "image": "a.png", "ill": 1},
        {"PatientID": "P5", "image": "none.png", "ill": 1},
    ]
    write_labels(tmp_path, rows)
    found = load(tmp_path, run(FLAT), LeftOut(withdrawn=frozenset({"P5"})))
    assert reasons(found) == {
        "line 3": Reason.NO_IMAGE,
        "line 4": Reason.NO_IMAGE,
        "line 5": Reason.NO_KEY,
        "patient P5": Reason.WITHDRAWN,
    }


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.png", "ill": 1}])
    first = load(tmp_path, run(FLAT)).items.image[0]
    torch.testing.assert_close(load(tmp_path, run(FLAT)).items.image[0], first)
    picture(tmp_path, "a.png", seed=7)
    assert not torch.equal(load(tmp_path, run(FLAT)).items.image[0], first)


CHANNELS = (
    "size: [8, 14, 11], fit: crop, intensity: window, window: [0, 2000], series: "
    "[{name: flair, reference: true}, {name: t1, missing: zero}]"
)


def test_channels_are_columns_and_one_that_may_be_missing_is_zeros(tmp_path: Path) -> None:
    affine = affine_of(PLANES["axial"])
    other = VOLUME[::-1].copy()
    turned = nifti(other, affine).as_reoriented(
        ornt_transform(nibabel.io_orientation(affine), axcodes2ornt("PSR"))
    )
    nibabel.save(nifti(VOLUME, affine), tmp_path / "flair.nii")
    nibabel.save(nifti(VOLUME, affine), tmp_path / "flair2.nii")
    nibabel.save(turned, tmp_path / "t1.nii.gz")
    atlas = nifti(other, affine)
    atlas.header["sform_code"] = atlas.header["qform_code"] = 4
    nibabel.save(atlas, tmp_path / "mni.nii")
    nibabel.save(nifti(VOLUME, affine), tmp_path / "flair3.nii")
    rows = [
        {"PatientID": "P1", "image_flair": "flair.nii", "image_t1": "t1.nii.gz", "ill": 1},
        {"PatientID": "P2", "image_flair": "flair2.nii", "image_t1": "", "ill": 0},
        {"PatientID": "P3", "image_flair": "flair3.nii", "image_t1": "mni.nii", "ill": 0},
    ]
    write_labels(tmp_path, rows)
    found = load(tmp_path, run(CHANNELS))
    assert found.items.pseudonyms == ("P1", "P2")
    both, alone = found.items.image
    np.testing.assert_allclose(both[0].numpy() * 2000, VOLUME, atol=0.5)
    np.testing.assert_allclose(both[1].numpy() * 2000, other, atol=0.5)
    assert torch.equal(alone[0], both[0])
    assert not alone[1].any()
    assert reasons(found)["line 4"] is Reason.NO_COMMON_FRAME
    assert found.fared["t1"] == {"matched": ("P1", "P3"), "missing": ("P2",)}


def test_a_file_is_one_series_alone(tmp_path: Path) -> None:
    affine = affine_of(PLANES["axial"])
    for seed, name in enumerate(("a", "b", "c")):
        nibabel.save(nifti(noise(8, 14, 11, seed=seed), affine), tmp_path / f"{name}.nii")
    rows = [
        {"PatientID": "P1", "image_flair": "a.nii", "image_t1": "b.nii", "ill": 1},
        {"PatientID": "P1", "image_flair": "b.nii", "image_t1": "c.nii", "ill": 1},
        {"PatientID": "P2", "image_flair": "c.nii", "image_t1": "./c.nii", "ill": 1},
    ]
    write_labels(tmp_path, rows[:2])
    assert reasons(load(tmp_path, run(CHANNELS)))["line 3"] is Reason.AMBIGUOUS_SERIES
    write_labels(tmp_path, rows[2:])
    assert refused(tmp_path, run(CHANNELS))[0] is Reason.AMBIGUOUS_SERIES
    # One series may stand in two rows of its patient.
    write_labels(tmp_path, [rows[0], rows[0] | {"image_flair": "c.nii"}])
    found = load(tmp_path, run(CHANNELS))
    assert torch.equal(found.items.image[0][1], found.items.image[1][1])


@pytest.mark.parametrize("axes", ["LPS", "RAS", "IAR"])
def test_slices_of_a_volume_have_their_part_of_its_outline(tmp_path: Path, axes: str) -> None:
    volume = noise(8, 16, 16, dtype="int16", top=2000)
    drawn = (volume > 1000).astype(np.uint8)
    affine = affine_of(PLANES["axial"], (0.75, 0.75))
    turn = ornt_transform(nibabel.io_orientation(affine), axcodes2ornt(axes))
    nibabel.save(nifti(volume, affine).as_reoriented(turn), tmp_path / "a.nii")
    nibabel.save(nifti(drawn, affine), tmp_path / "mask.nii.gz")
    task = "{kind: segmentation, mask: mask, structures: {lesion: [1]}}"
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.nii", "mask": "mask.nii.gz"}])
    window = "size: [16, 16], intensity: window, window: [0, 2000]"
    found = load(tmp_path, run(window, task=task, network="unet"))
    assert not found.unusable
    assert len(found.items.image) == 8
    for image_, target in zip(found.items.image, found.items.target, strict=True):
        assert np.array_equal(np.rint(image_[0].numpy() * 2000) > 1000, target.numpy() > 0)


def test_outlines_are_niftis_of_volumes_and_pngs_of_pictures(tmp_path: Path) -> None:
    volume = noise(8, 16, 8, dtype="int16", top=2000)
    drawn = (volume > 1000).astype(np.uint8)
    affine = affine_of(PLANES["axial"])
    site = tmp_path / "volumes"
    site.mkdir()
    nibabel.save(nifti(volume, affine), site / "a.nii")
    nibabel.save(nifti(drawn, affine), site / "mask.nii.gz")
    task = "{kind: segmentation, mask: mask, structures: {lesion: [1]}}"
    row = {"PatientID": "P1", "image": "a.nii", "mask": "mask.nii.gz"}
    write_labels(site, [row])
    config = run("size: [8, 16, 8], fit: crop", task=task, network="unet")
    assert np.array_equal(load(site, config).items.target[0].numpy().reshape(drawn.shape), drawn)
    save(site / "mask.dcm", image(noise(8, 8)))
    write_labels(site, [row | {"mask": "mask.dcm"}])
    reason, detail = refused(site, config)
    assert reason is Reason.MASK_UNUSABLE
    assert "NIfTI" in detail
    flat = tmp_path / "pictures"
    flat.mkdir()
    grey = noise(16, 16, dtype="uint8", top=250)
    Pillow.fromarray(grey).save(flat / "a.png")
    Pillow.fromarray((grey > 100).astype(np.uint8) * 255).save(flat / "mask.png")
    write_labels(flat, [{"PatientID": "P1", "image": "a.png", "mask": "mask.png"}])
    config = run("size: [16, 16]", task=task, network="unet")
    assert np.array_equal(load(flat, config).items.target[0].numpy().reshape(16, 16), grey > 100)


# --- configuration -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        "modalities: [CT]",
        "body_parts: [CHEST]",
        "laterality: L",
        "units: BQML",
        "presentation: for_processing",
        "series: [{name: flair}]",
        "series: [{name: a, reference: true, description: [a]}, {name: b}]",
        "series: [{name: a, reference: true}, {name: b, pick: newest}]",
        "time: {by: echo, frames: 2}",
    ],
)
def test_what_asks_for_headers_is_refused_with_files(asked: str) -> None:
    with pytest.raises(ConfigurationError, match=r"header|files"):
        run(f"size: [8, 8, 8], {asked}")


def test_predict_says_what_a_model_of_files_can_be_asked(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", image(noise(8, 8)))
    rows = SiteRows(labels=None, withdrawn=frozenset())
    with pytest.raises(ConfigurationError, match="wardround-simulate evaluate"):
        read_study([path], run("size: [8, 8]"), rows)


def test_files_without_nibabel_name_what_is_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nibabel.save(nifti(VOLUME, affine_of(PLANES["axial"])), tmp_path / "a.nii")
    write_labels(tmp_path, [{"PatientID": "P1", "image": "a.nii", "ill": 1}])
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(CohortError, match="pip install nibabel"):
        load(tmp_path, run())


def test_a_configuration_without_files_keeps_its_hash() -> None:
    plain = config_of()
    assert "format" not in json.dumps(plain.model_dump(mode="json"))
