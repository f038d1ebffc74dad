"""Sequences on grids of their own are brought to the reference's: against scipy and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from client.cohort.image import Image, as_input
from client.cohort.loading import load_cohort
from client.cohort.site_cohort import SiteCohort
from client.dicom.reading.read import read_header
from client.dicom.reading.volume import Geometry
from client.dicom.reasons import Reason
from client.series.alignment import misaligned, shown_in_part
from client.series.common_grid import on_grid_of
from client.site.cache import Cache
from common.config.run_config import Images, RunConfig
from common.platform.errors import CohortError
from common.tasks import task_of
from tests.client.dicom_files import config_of, image, placed, segmentation, write_labels
from tests.client.dicom_files import save as save_file
from tests.client.series.series_files import Float, Grid, axes, blob, write

#: As viewers show axial slices, so that nothing is turned; the input is the stored values / 65535.
REFERENCE = Grid(shape=(8, 16, 16), spacing=(4.0, 2.0, 2.0), corner=(-15, -15, -14))
CENTRE = (0.0, 1.0, 0.0)


def run(more: str = "", size: str = "[8, 16, 16]", task: str = "") -> RunConfig:
    rules = "[{name: flair, reference: true, description: [flair]}, {name: t2, description: [t2]}]"
    intensity = "intensity: window, window: [0, 65535], fit: crop"
    return config_of(
        cohort=f"{{images: {{size: {size}, {intensity}, series: {rules}{more}}}}}",
        **({"task": task, "network": "unet"} if task else {}),
    )


def site_with(folder: Path, other: Grid, values: Float | None = None, **more: object) -> Float:
    """Write a FLAIR on the reference and a T2 on its own grid; return the T2's values."""
    write(folder, "FLAIR", blob(CENTRE)(REFERENCE.places()), REFERENCE)
    found = blob(CENTRE)(other.places()) if values is None else values
    write(folder, "T2", found, other, **more)  # type: ignore[arg-type]  # keywords of DICOM
    write_labels(folder, [{"PatientID": "P1", "ill": 1}])
    return found


def loaded(folder: Path, config: RunConfig | None = None) -> SiteCohort:
    chosen = config or run()
    return load_cohort(folder, chosen, task_of(chosen.task), Cache(folder.parent / "cache"))


def stored(channel: Float) -> Float:
    """Return a channel as the values that were written."""
    found: Float = (channel * 65535 - 2000) / 20000
    return found


GRIDS = {
    "shifted": Grid(shape=(10, 20, 18), spacing=(4, 2, 2), corner=(-17, -21, -18)),
    "finer": Grid(shape=(20, 30, 28), spacing=(2, 1.5, 1.5), corner=(-20, -22, -20)),
    "oblique": Grid(
        shape=(12, 22, 22), spacing=(3.5, 2, 2), corner=(-21, -19, -24), directions=axes(8, -11, 14)
    ),
    "coronal": Grid(shape=(20, 20, 20), spacing=(2.2, 2, 2), directions=axes(90)).around(),
    "sagittal": Grid(shape=(20, 20, 20), spacing=(2.2, 2, 2), directions=axes(0, 90)).around(),
}
#: Axes along which the reference's slices are twice as far apart: smoothed before.
SHRUNK = {"finer": (0.5, 0, 0), "coronal": (0, 0.5, 0), "sagittal": (0, 0, 0.5)}


@pytest.mark.parametrize("name", GRIDS)
def test_a_series_on_its_own_grid_is_what_scipy_makes_of_the_affines(
    tmp_path: Path, name: str
) -> None:
    other = GRIDS[name]
    values = np.round(site_with(tmp_path / "s", other) * 20000) / 20000
    found = stored(loaded(tmp_path / "s").items.image[0, 1].numpy().astype(np.float64))
    turn = np.linalg.inv(other.affine) @ REFERENCE.affine
    smooth = ndimage.gaussian_filter(values, SHRUNK.get(name, 0), mode="nearest")
    expected = ndimage.affine_transform(
        smooth, turn[:3, :3], turn[:3, 3], REFERENCE.shape, order=1, cval=np.nan
    )
    shown = ~np.isnan(expected)
    shown[:1] = shown[-1:] = shown[:, :1] = shown[:, -1:] = False
    shown[:, :, :1] = shown[:, :, -1:] = False  # the inner part
    assert shown.sum() > 500
    assert np.abs(found - expected)[shown].max() < 1e-3 * np.ptp(values)
    # And it is what the quantity is there, but for the interpolation.
    truth = blob(CENTRE)(REFERENCE.places())
    assert np.abs(found - truth)[shown].max() < 0.07


@pytest.mark.parametrize("name", GRIDS)
def test_a_voxel_that_is_marked_lies_where_it_was(tmp_path: Path, name: str) -> None:
    other = GRIDS[name]
    place = tuple(length // 2 for length in other.shape)
    values = np.zeros(other.shape)
    values[place] = 1
    wide = [2.0 * 2 / step for step in other.spacing]
    values = ndimage.gaussian_filter(values, wide)
    values /= values.max()
    site_with(tmp_path / "s", other, values)
    found = loaded(tmp_path / "s").items.image[0, 1].numpy().astype(np.float64)
    weight = np.clip(stored(found), 0, None)
    weight[weight < 0.1] = 0
    centre = [float((np.arange(n) * weight.sum(axis=tuple({0, 1, 2} - {k}))).sum() / weight.sum())
              for k, n in enumerate(weight.shape)]  # fmt: skip
    real = other.affine[:3, :3] @ np.array(place) + other.affine[:3, 3]
    expected = np.linalg.inv(REFERENCE.affine) @ np.array([*real, 1])
    assert np.abs(np.array(centre) - expected[:3]).max() < 0.5


@pytest.mark.parametrize("which", ["flipped", "transposed", "reference"])
def test_how_rows_and_columns_are_stored_changes_nothing(tmp_path: Path, which: str) -> None:
    other = GRIDS["oblique"]
    values = site_with(tmp_path / "a" / "s", other)
    plain = loaded(tmp_path / "a" / "s").items.image
    site = tmp_path / "b" / "s"
    if which == "reference":
        turned = blob(CENTRE)(REFERENCE.places())[:, ::-1, ::-1]
        write(site, "FLAIR", turned, REFERENCE.flipped())
        write(site, "T2", values, other)
        write_labels(site, [{"PatientID": "P1", "ill": 1}])
    elif which == "flipped":
        site_with(site, other.flipped(), values[:, ::-1, ::-1])
    else:
        site_with(site, other.transposed(), values.swapaxes(1, 2))
    assert float((loaded(site).items.image - plain).abs().max()) < 1e-5


def test_another_frame_of_reference_leaves_the_study_out_unless_it_is_trusted(
    tmp_path: Path,
) -> None:
    site_with(tmp_path / "s", GRIDS["shifted"], frame="other")
    with pytest.raises(CohortError, match="NO_COMMON_FRAME"):
        loaded(tmp_path / "s")
    assert loaded(tmp_path / "s", run(", register: trust")).items.image.shape[1] == 2
    site_with(tmp_path / "t", GRIDS["shifted"], frame="")
    with pytest.raises(CohortError, match="its frame of reference is not said"):
        loaded(tmp_path / "t")


def test_a_series_beside_the_grid_and_one_that_shows_half_of_it(tmp_path: Path) -> None:
    far = Grid(shape=(10, 20, 18), spacing=(4, 2, 2), corner=(500, -21, -18))
    site_with(tmp_path / "s", far)
    with pytest.raises(CohortError, match="series t2: it shows nothing of the grid"):
        loaded(tmp_path / "s")
    half = Grid(shape=(4, 20, 18), spacing=(4, 2, 2), corner=(-17, -21, -14))
    site_with(tmp_path / "t", half)
    channel = loaded(tmp_path / "t").items.image[0, 1]
    assert float(channel[5:].std()) == 0  # what it does not show is its lowest value
    assert float(channel[:3].std()) > 0


@pytest.mark.parametrize("name", ["shifted", "oblique"])
def test_slices_of_a_2d_run_have_their_channels_in_their_own_plane(
    tmp_path: Path, name: str
) -> None:
    site_with(tmp_path / "s", GRIDS[name])
    deep = loaded(tmp_path / "s").items.image[0]
    flat = loaded(tmp_path / "s", run(size="[16, 16]")).items.image
    assert flat.shape == (8, 2, 16, 16)
    assert float((flat.swapaxes(0, 1) - deep).abs().max()) < 1e-5


def test_masks_stand_on_the_grid_of_the_reference(tmp_path: Path) -> None:
    task = "{kind: segmentation, mask: mask, structures: {a: [1]}}"
    site = tmp_path / "s"
    site_with(site, GRIDS["oblique"])
    drawn = np.zeros(REFERENCE.shape, np.uint8)
    drawn[3:5, 6:9, 7:11] = 1
    from pydicom import dcmread

    sources = [dcmread(p) for p in sorted((site / "P1" / "S" / "FLAIR").iterdir())]
    save_file(site / "seg.dcm", segmentation({1: drawn}, sources))
    write_labels(site, [{"PatientID": "P1", "mask": "seg.dcm"}])
    big = "[16, 16, 16]"
    found = loaded(site, run(size=big, task=task)).items
    assert found.image.shape[:2] == (1, 2)
    assert np.array_equal(found.target[0, 4:12].numpy(), drawn)


def test_an_absent_series_is_zeros_of_the_extent_that_patches_are_cut_from() -> None:
    rules = Images.model_validate(
        {
            "patch": [8, 16, 16],
            "spacing": [4.0, 2.0, 2.0],
            "series": [
                {"name": "flair", "reference": True, "description": ["flair"]},
                {"name": "t2", "description": ["t2"], "missing": "zero"},
            ],
        }
    )
    volume = np.random.default_rng(0).random((10, 20, 18)).astype(np.float32)
    header = read_header(placed(image(np.zeros((20, 18), np.uint16)), (0, 0, 0)))
    geometry = Geometry(affine=np.diag([4.0, 2, 2, 1]), spacing=(4.0, 2.0, 2.0))
    found = as_input(
        Image(
            source="s",
            header=header,
            values=volume,
            frame=0,
            geometry=geometry,
            first="f",
            instances=frozenset(),
        ),
        rules,
    )
    assert found.shape == (2, 10, 20, 18)
    assert found[0].any()
    assert not found[1].any()


def test_smoothing_is_for_grids_that_are_coarser_by_more_than_half() -> None:
    fine = np.random.default_rng(0).random((30, 8, 8)).astype(np.float32)
    affine, coarse = np.eye(4), np.diag([3.0, 1, 1, 1])
    found = on_grid_of(fine, None, affine, coarse, (10, 8, 8)).values
    assert found.std() < 0.75 * fine.std()  # noise is averaged, and not every third slice taken
    same = on_grid_of(fine, None, affine, np.diag([1.4, 1, 1, 1]), (20, 8, 8)).values
    assert np.array_equal(same[5], fine[7])


def test_a_plane_is_as_the_same_plane_of_a_whole_grid() -> None:
    """Only what a plane takes of a series is smoothed: nothing else may differ."""
    fine = np.random.default_rng(1).random((60, 24, 24)).astype(np.float32)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", (20, 5, 3), degrees=True).as_matrix() @ np.diag(
        [3.0, 2.0, 2.0]
    )
    turned[:3, 3] = (2.0, -3.0, 4.0)
    whole = on_grid_of(fine, None, np.eye(4), turned, (20, 12, 12))
    # All of it smoothed, and then taken from.
    steps = np.linalg.norm(turned[:3, :3], axis=1)
    smooth = ndimage.gaussian_filter(fine, (steps - 1) / 2, mode="nearest")
    slow = ndimage.affine_transform(
        smooth, turned[:3, :3], turned[:3, 3], (20, 12, 12), order=1, mode="nearest"
    )
    assert whole.padding is not None
    shown = ~whole.padding
    assert np.allclose(whole.values[shown], slow[shown], atol=1e-6)
    for plane in (0, 7, 19):
        grid = turned.copy()
        grid[:3, 3] = turned[:3, 3] + plane * turned[:3, 0]
        one = on_grid_of(fine, None, np.eye(4), grid, (1, 12, 12))
        assert np.allclose(one.values[0], whole.values[plane], atol=1e-6)


def test_what_moved_between_two_series_is_told_and_used(tmp_path: Path) -> None:
    shape = (8, 48, 48)
    seen = np.random.default_rng(1).random(shape)
    tissue = ndimage.gaussian_filter(seen, (0.5, 2, 2))
    tissue = (tissue - tissue.min()) / np.ptp(tissue)
    grid = Grid(shape=shape, spacing=(4, 2, 2), corner=(0, 0, 0))
    moved = Grid(shape=shape, spacing=(4, 2, 2), corner=(0, 4, 0))
    for name, place in (("a", grid), ("b", moved)):
        site = tmp_path / name / "s"
        write(site, "FLAIR", tissue, grid)
        write(site, "T2", np.cos(4 * tissue), place)
        write_labels(site, [{"PatientID": "P1", "ill": 1}])
        found = loaded(site, run(size="[8, 48, 48]"))
        told = [p.detail for p in found.unusable if p.reason is Reason.MISALIGNED]
        assert len(found.items) == 1
        assert bool(told) == (name == "b")
        assert all("series t2 on flair: moved by 2 voxels along axis 2" in text for text in told)


def test_little_that_is_shown_is_never_told() -> None:
    values = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    nothing = np.zeros(values.shape, np.bool_)
    assert misaligned(values, values[::-1].copy(), nothing) == ""


def test_what_shares_nothing_where_it_lies_is_told_without_a_share() -> None:
    values = np.random.default_rng(0).random((8, 32, 32)).astype(np.float32)
    plain = np.zeros(values.shape, np.float32)
    plain[:, :, 29:] = values[:, :, 26:29]  # beyond what is compared where it lies
    assert misaligned(values, plain, None) == (
        "moved by 3 voxels along axis 3 it shares information, and none here"
    )


def test_how_much_is_shown_is_counted_in_what_the_reference_shows() -> None:
    none = np.ones((4, 10, 10), np.bool_)
    half, less = none.copy(), none.copy()
    half[:2], less[:1] = False, False
    assert shown_in_part(None, None) == shown_in_part(None, half) == ""
    assert shown_in_part(None, less) == "it shows 25% of the grid"
    assert shown_in_part(less, less) == ""  # the rest is padding in both
    assert shown_in_part(half, less) == ""
    assert shown_in_part(None, none) == shown_in_part(none, none) == "it shows 0% of the grid"


def test_a_series_of_two_slices_is_used_and_named(tmp_path: Path) -> None:
    """The first two slices of its grid, none of which is compared at rest."""
    site, grid = tmp_path / "s", Grid(shape=(14, 32, 32))
    values = np.random.default_rng(2).random(grid.shape)
    write(site, "FLAIR", values, grid)
    write(site, "T2", values[:2], Grid(shape=(2, 32, 32)))
    write_labels(site, [{"PatientID": "P1", "ill": 1}])
    found = loaded(site, run(size="[14, 32, 32]"))
    assert len(found.items) == 1
    (told,) = found.unusable
    assert (told.reason, told.detail) == (
        Reason.SHOWN_IN_PART,
        "series t2 on flair: it shows 14% of the grid",
    )
