"""A head leaves without its face and with all of its brain, or it stays with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID
from typer.testing import CliRunner

from client.cli.app import app
from client.dicom.deidentify.defaced_series import DefacedSeries, FaceVerdict, deface
from tests.client.dicom_files import SHARED, image, placed, save, segmentation, uid

pytestmark = pytest.mark.slow

Parts = Mapping[str, NDArray[np.bool_]]
Cosines = tuple[float, float, float, float, float, float]
AXIAL: Cosines = (1, 0, 0, 0, 1, 0)
SAGITTAL: Cosines = (0, 1, 0, 0, 0, -1)
CORONAL: Cosines = (1, 0, 0, 0, 0, -1)
#: Nodding by 12 degrees, as axial slices are tilted along the skull's base.
TILTED: Cosines = (1, 0, 0, 0, 0.978, -0.208)
MR, CT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "2"))
#: Values of air, scalp and face, bone, brain.
VALUES = {MR: (10, 260, 30, 160), CT: (24, 1064, 1900, 1060)}
PIXEL, GAP = 2.5, 4.0  # mm
#: Half of what is scanned, to the left, back and head, and its middle, mm.
HALF, MIDDLE = np.array([90.0, 125.0, 105.0]), np.array([0.0, -15.0, -20.0])


def ellipsoid(
    points: NDArray[np.float64], middle: Sequence[float], radii: Sequence[float]
) -> NDArray[np.bool_]:
    found = (((points - np.array(middle)) / np.array(radii)) ** 2).sum(axis=-1) < 1
    return np.asarray(found)


def parts(points: NDArray[np.float64]) -> Parts:
    """Return a made-up head's parts at points, (..., 3) in mm; it is born at the brain's middle."""
    brain = ellipsoid(points, (0, 0, 0), (66, 82, 62))
    skull = ellipsoid(points, (0, 0, 0), (73, 89, 69)) & ~brain
    scalp = ellipsoid(points, (0, 0, 0), (81, 97, 77))
    nose = ellipsoid(points, (0, -108, -72), (12, 20, 18))
    face = ellipsoid(points, (0, -62, -75), (58, 44, 68)) | nose
    neck = ellipsoid(points, (0, 20, -100), (52, 55, 90))
    skin = face & ~ellipsoid(points, (0, -62, -75), (50, 36, 60)) & (points[..., 1] < -85)
    front = nose | (skin & (points[..., 2] < -40))
    return {
        "brain": brain,
        "skull": skull,
        "soft": (scalp | face | neck) & ~brain & ~skull,
        "front": front & ~brain & ~skull,  # what a rendering of the face shows
    }


@cache
def lattice(cosines: Cosines) -> list[tuple[NDArray[np.float64], Parts]]:
    """Return the first pixel of each slice, and its parts."""
    return [(first, parts(points)) for first, points in _lattice(cosines)]


def _lattice(cosines: Cosines) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the first pixel of each slice, and where its pixels lie."""
    across, down = np.array(cosines[:3], float), np.array(cosines[3:], float)
    normal = np.cross(across, down)
    counts = [
        int(2 * np.abs(HALF @ np.abs(v)) / step)
        for v, step in ((across, PIXEL), (down, PIXEL), (normal, GAP))
    ]
    corner = MIDDLE - across * counts[0] * PIXEL / 2 - down * counts[1] * PIXEL / 2
    for number in range(counts[2]):
        first = corner + normal * (number - counts[2] / 2) * GAP
        columns = np.arange(counts[0])[None, :, None] * PIXEL * across
        rows = np.arange(counts[1])[:, None, None] * PIXEL * down
        yield first, first + rows + columns


def head(cosines: Cosines = AXIAL, kind: str = MR, series: str = "1") -> Iterator[FileDataset]:
    """Yield a head's slices."""
    air, soft, bone, brain = VALUES[kind]
    speckle = np.random.default_rng(3)
    for number, (first, at) in enumerate(lattice(cosines)):
        values = np.full(at["brain"].shape, air)
        for name, value in (("soft", soft), ("skull", bone), ("brain", brain)):
            values[at[name]] = value
        noisy = (values + speckle.integers(-5, 6, values.shape)).astype("<u2")
        one = placed(
            image(noisy, series=series, number=number), first.tolist(), cosines, (PIXEL, PIXEL)
        )
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = UID(kind)
        one.Modality, one.FrameOfReferenceUID = "MR" if kind == MR else "CT", uid("frame")
        one.ImageType, one.SliceThickness = ["ORIGINAL", "PRIMARY", "AXIAL"], GAP
        one.BodyPartExamined, one.InstanceNumber = "HEAD", number + 1
        if kind == CT:
            one.RescaleSlope, one.RescaleIntercept = 1, -1024
        yield one


def saved(folder: Path, datasets: Iterator[FileDataset]) -> list[Path]:
    return [save(folder / f"{n:03d}.dcm", one) for n, one in enumerate(datasets)]


def changed(path: Path, verdict: FaceVerdict) -> NDArray[np.int64]:
    assert verdict.change is not None, verdict.withheld
    return np.asarray(verdict.change(dcmread(path).pixel_array[None])[0], np.int64)


@pytest.mark.parametrize(
    ("cosines", "kind"),
    [(AXIAL, MR), (SAGITTAL, MR), (CORONAL, CT), (TILTED, CT)],
    ids=["axial-mr", "sagittal-mr", "coronal-ct", "tilted-ct"],
)
def test_the_face_is_background_and_every_voxel_of_the_brain_is_as_it_was(
    tmp_path: Path, cosines: Cosines, kind: str
) -> None:
    paths = saved(tmp_path, head(cosines, kind))
    shown: list[DefacedSeries] = []
    verdicts = deface(paths[::-1], shown.append)  # their order says nothing
    air = VALUES[kind][0]
    front = left = 0
    for path, (_, at) in zip(paths, lattice(cosines), strict=True):
        before, after = dcmread(path).pixel_array, changed(path, verdicts[path])
        assert np.array_equal(before[at["brain"]], after[at["brain"]])
        front += int(at["front"].sum())
        left += int((after[at["front"]] > air + 20).sum())
        gone = before != after
        assert np.abs(after[gone].astype(int) - air).max(initial=0) <= 6
    assert front > 500
    assert left == 0
    (one,) = shown
    assert one.images == len(paths)
    assert one.before.shape == one.after.shape
    assert int(one.after.sum()) < int(one.before.sum())


def reasons(folder: Path, datasets: Iterator[FileDataset]) -> set[str]:
    verdicts = deface(saved(folder, datasets), lambda _: None)
    assert all(verdict.change is None for verdict in verdicts.values())
    return {verdict.withheld for verdict in verdicts.values()}


def with_changes(datasets: Iterator[FileDataset], **values: object) -> Iterator[FileDataset]:
    for one in datasets:
        for name, value in values.items():
            if value is None:
                delattr(one, name)
            else:
                setattr(one, name, value)
        yield one


def some(datasets: Iterator[FileDataset], step: int, first: int = 0) -> Iterator[FileDataset]:
    yield from list(datasets)[first::step]


def without_face(datasets: Iterator[FileDataset]) -> Iterator[FileDataset]:
    """Yield a head of which only the brain is left."""
    for one in datasets:
        values = one.pixel_array.copy()
        values[np.abs(values.astype(int) - VALUES[MR][3]) > 6] = 0
        one.PixelData = values.tobytes()
        yield one


def test_what_is_no_volume_of_a_head_with_a_face_stays_and_says_why(tmp_path: Path) -> None:
    made: dict[str, Iterator[FileDataset]] = {
        "localizer": with_changes(head(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "picture of a volume": with_changes(head(), ImageType=["DERIVED", "SECONDARY", "MIP"]),
        "BodyPartExamined is HEART": with_changes(head(), BodyPartExamined="HEART"),
        "no position": with_changes(head(), ImagePositionPatient=None),
        "colour or inverted": with_changes(head(), PhotometricInterpretation="MONOCHROME1"),
        "too few": some(head(), 8),
        "Slices are missing": (one for n, one in enumerate(head()) if n != 20),
        "It is no head": with_changes(head(), PixelSpacing=[5.0, 5.0]),
        "gone already": without_face(head()),
    }
    for number, (said, datasets) in enumerate(made.items()):
        (why,) = reasons(tmp_path / str(number), datasets)
        assert said in why, (said, why)


def test_photographs_and_segments_of_the_face_stay_and_other_segments_go_as_they_are(
    tmp_path: Path,
) -> None:
    sources = list(head())[20:22]
    drawn = np.ones((2, *sources[0].pixel_array.shape), np.uint8)
    for name, label in (("tumour", "Tumour"), ("skin", "Skin of the forehead")):
        one = segmentation({1: drawn}, sources)
        one.SegmentSequence[0].SegmentLabel = label
        kind = Dataset()
        kind.CodeMeaning = label
        one.SegmentSequence[0].SegmentedPropertyTypeCodeSequence = Items([kind])
        save(tmp_path / f"{name}.dcm", one)
    save(tmp_path / "photograph.dcm", image(np.zeros((8, 8, 3), np.uint8)))
    found = deface(sorted(tmp_path.iterdir()), lambda _: None)
    photograph, skin, tumour = found.values()
    assert tumour == FaceVerdict()
    assert "skin" in skin.withheld
    assert "no volume of CT or MR" in photograph.withheld


def flat(datasets: Iterator[FileDataset]) -> Iterator[FileDataset]:
    """Yield a head in which bone is as bright as brain."""
    for one in datasets:
        values = one.pixel_array.copy()
        values[values > 20] = VALUES[MR][3]
        one.PixelData = values.tobytes()
        yield one


def test_a_series_that_does_not_tell_its_brain_uses_the_place_of_one_in_the_same_frame(
    tmp_path: Path,
) -> None:
    plain = saved(tmp_path / "flat", flat(head(series="2")))
    clear = saved(tmp_path / "clear", head())
    shown: list[DefacedSeries] = []
    verdicts = deface([*plain, *clear], shown.append)
    assert [bool(one.borrowed) for one in shown] == [True, False]
    for path, (_, at) in zip(plain, lattice(AXIAL), strict=True):
        after = changed(path, verdicts[path])
        assert after[at["front"]].max(initial=0) < 30
    moved = saved(
        tmp_path / "moved", with_changes(flat(head(series="3")), FrameOfReferenceUID=uid("other"))
    )
    verdicts = deface([*moved, *clear], lambda _: None)
    assert {"not told apart" in verdicts[path].withheld for path in moved} == {True}
    assert {bool(verdicts[path].withheld) for path in clear} == {False}


def test_a_head_is_shown_and_released_only_once_a_person_has_looked(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    sources = with_changes(head(), RecognizableVisualFeatures="YES")
    paths = saved(tmp_path / "in", sources)
    save(tmp_path / "in" / "photograph.dcm", image(np.zeros((8, 8, 3), np.uint8)))

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, "--home", str(home)])
        return done.exit_code, " ".join(done.output.split())

    assert typed("init", "north", "--data", str(tmp_path / "in"))[0] == 0
    release = ("deidentify", str(tmp_path / "in"), "--out", str(out), "--deface")
    status, said = typed(*release)
    assert (status, list(out.rglob("*.dcm"))) == (3, [])
    assert "give --faces-checked" in said
    page = home / "defaced.html"
    assert oct(page.stat().st_mode)[-3:] == "600"
    assert page.read_text().count("data:image/png") == 2
    status, said = typed(*release, "--faces-checked")
    assert "1 x" in said  # the photograph
    released = list(out.rglob("*.dcm"))
    assert len(released) == len(paths)
    for path in released:
        got = dcmread(path)
        assert got.RecognizableVisualFeatures == "NO"
        assert "BurnedInAnnotation" not in got
        codes = [item.CodeValue for item in got.DeidentificationMethodCodeSequence]
        assert "113102" in codes
        assert "113101" not in codes


def test_no_voxel_of_a_real_tumour_is_lost_and_the_skin_in_front_is_gone(tmp_path: Path) -> None:
    del tmp_path
    folder = SHARED / "glioma-mr" / "jefferson" / "GL7891F234"
    paths = sorted((folder / "flair").glob("*.dcm"))
    verdicts = deface(paths, lambda _: None)
    drawn = dcmread(folder / "seg.dcm")
    places = [
        f.PlanePositionSequence[0].ImagePositionPatient
        for f in drawn.PerFrameFunctionalGroupsSequence
    ]
    tumour = {
        round(float(place[2]), 2): mask
        for place, mask in zip(places, drawn.pixel_array, strict=True)
    }
    inside = 0
    for number, path in enumerate(paths):
        source = dcmread(path)
        before, after = source.pixel_array, changed(path, verdicts[path])
        mask = tumour.get(round(float(source.ImagePositionPatient[2]), 2))
        if mask is not None:
            inside += int((mask > 0).sum())
            assert np.array_equal(before[mask > 0], after[mask > 0])
        if number in {2, 4}:
            middle = slice(before.shape[1] // 2 - 10, before.shape[1] // 2 + 10)
            skin = np.argmax(before[:, middle] > 30, axis=0)
            assert after[skin, np.arange(middle.start, middle.stop)].max() < 15
    assert inside > 500
