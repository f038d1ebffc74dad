"""A circle stays a circle: pixels that are not square keep their shape in 2-D, and come back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian

from client.cohort.image_quality import ImageRequirements, judge
from client.dicom.headers.checks import PixelElement, Scan
from client.dicom.headers.elements import Parsed
from client.dicom.headers.header import parse_header, read_file
from client.dicom.headers.instance import Instance, describe
from client.dicom.index.index import Index
from client.dicom.reading.files import File
from client.dicom.reading.read import read_header
from client.dicom.reasons import Reason
from client.inference.grid import flat_place, unfit
from client.site.quality_section import QualityRules
from common.config.run_config import Images
from common.data.preprocessing import prepare, prepare_labels
from tests.client.dicom_files import config_of, image, load, save, write_labels

SIDE = 96  # mm, of the field of view
RADIUS = 30


def region(across: float, down: float, left: int = 0, right: int = 200, **more: int) -> Dataset:
    """Return an ultrasound region of tissue with pixels of so many cm (PS3.3 C.8.5.5)."""
    found = Dataset()
    said = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionFlags": 0,
        "RegionLocationMinX0": left,
        "RegionLocationMinY0": 0,
        "RegionLocationMaxX1": right,
        "RegionLocationMaxY1": 200,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": across,
        "PhysicalDeltaY": down,
        **more,
    }
    for name, value in said.items():
        setattr(found, name, value)
    return found


SAID: dict[str, tuple[dict[str, list[float] | list[Dataset]], float]] = {
    "PixelSpacing": ({"PixelSpacing": [2.0, 1.0]}, 2.0),
    "wide pixels": ({"PixelSpacing": [1.0, 2.0]}, 0.5),
    "ImagerPixelSpacing": ({"ImagerPixelSpacing": [0.3, 0.1]}, 3.0),
    "PixelSpacing before the detector's": (
        {"PixelSpacing": [2.0, 1.0], "ImagerPixelSpacing": [1.0, 1.0]},
        2.0,
    ),
    "NominalScannedPixelSpacing": ({"NominalScannedPixelSpacing": [0.2, 0.1]}, 2.0),
    "PixelAspectRatio": ({"PixelAspectRatio": [3, 2]}, 1.5),
    "spacing before the ratio": ({"PixelSpacing": [1.0, 1.0], "PixelAspectRatio": [3, 2]}, 1.0),
    "rounded": ({"PixelSpacing": [0.1940001, 0.194]}, 1.0),
    "a ratio of nothing": ({"PixelAspectRatio": [0, 1]}, 1.0),
    "nothing": ({}, 1.0),
    "an ultrasound region": ({"SequenceOfUltrasoundRegions": [region(0.1, 0.2)]}, 2.0),
    "a region before spacing": (
        {"SequenceOfUltrasoundRegions": [region(0.1, 0.2)], "PixelSpacing": [1.0, 1.0]},
        2.0,
    ),
    "a region upside down": ({"SequenceOfUltrasoundRegions": [region(0.2, -0.1)]}, 0.5),
    "the largest region of tissue": (
        {"SequenceOfUltrasoundRegions": [region(0.1, 0.1, 0, 50), region(0.1, 0.2, 50)]},
        2.0,
    ),
    "regions of no tissue": (
        {
            "SequenceOfUltrasoundRegions": [
                region(0.01, 0.2, PhysicalUnitsXDirection=4),
                region(0.1, 0.2, RegionSpatialFormat=3),
                region(0.0, 0.2),
                Dataset(),
            ],
            "PixelSpacing": [1.0, 2.0],
        },
        0.5,
    ),
}


def circle(tall: float) -> NDArray[np.bool_]:
    """Return a circle of RADIUS in a field of SIDE, in pixels so many times as high as wide."""
    height, width = max(tall, 1.0), max(1 / tall, 1.0)
    rows, columns = np.indices((round(SIDE / height), round(SIDE / width)))
    down, across = (rows + 0.5) * height - SIDE / 2, (columns + 0.5) * width - SIDE / 2
    return np.asarray(down**2 + across**2 < RADIUS**2)


def drawn(said: Mapping[str, object], tall: float, patient: str = "P1") -> FileDataset:
    dataset = image(np.where(circle(tall), 1000, 10).astype(np.uint16), patient, f"S{patient}")
    for name, value in said.items():
        setattr(dataset, name, value)
    return dataset


def sides(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Return height and width of what is drawn."""
    return int(inside.any(axis=1).sum()), int(inside.any(axis=0).sum())


ODD = {
    "PixelSpacing before the detector's",
    "spacing before the ratio",
    "a region before spacing",
    "the largest region of tissue",
}


@pytest.mark.parametrize("kind", SAID)
def test_a_header_that_gives_pixels_two_shapes_is_listed_or_left_out(kind: str) -> None:
    said, tall = SAID[kind]
    file = File(path=Path("x"), size=1, mtime_ns=0)
    dataset = drawn(said, tall)
    found = describe(
        file,
        Scan(
            elements=Parsed(dataset),
            syntax=ExplicitVRLittleEndian,
            media_class="",
            pixels=PixelElement(tag=0x7FE00010, start=-1, length=len(dataset.PixelData)),
        ),
    )
    odd = kind in ODD
    listed = judge((found,), QualityRules(), ImageRequirements())
    assert [s.reason for s in listed.warned if s.reason is Reason.PIXEL_SHAPE] == (
        [Reason.PIXEL_SHAPE] * odd
    )
    assert not listed.left_out
    left = judge((found,), QualityRules(pixel_shape="leave_out"), ImageRequirements()).left_out
    assert [s.reason for s in left] == [Reason.PIXEL_SHAPE] * odd


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
@pytest.mark.parametrize("kind", SAID)
def test_a_circle_and_its_mask_stay_round(tmp_path: Path, kind: str, fit: str) -> None:
    said, tall = SAID[kind]
    site = tmp_path / "site"
    path = save(site / "a.dcm", drawn(said, tall))
    Picture.fromarray((circle(tall) * 255).astype(np.uint8)).save(site / "m.png")
    write_labels(site, [{"PatientID": "P1", "mask": "m.png"}])
    file = File(path=path.absolute(), size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)
    found = read_file(file)
    assert found == parse_header(file)
    assert isinstance(found, Instance)
    with Index(tmp_path / "index.db") as index:
        index.update(site)
        assert tuple(index.instances()) == (found,)
    config = config_of(
        "{kind: segmentation}",
        f"{{images: {{size: [96, 96], fit: {fit}}}, smallest_cohort: 1}}",
        "unet",
    )
    items = load(site, config, tmp_path / "cache").items
    wanted = circle(1.0)
    for inside in (items.image[0, 0].numpy() > 0.5, items.target[0].numpy() > 0):
        height, width = sides(inside)
        assert abs(height - 2 * RADIUS) <= 3
        assert abs(width - 2 * RADIUS) <= 3
        assert np.mean(inside != wanted) < 0.02


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
@pytest.mark.parametrize("kind", SAID)
def test_what_was_outlined_comes_back_onto_the_pixels_as_sent(kind: str, fit: str) -> None:
    said, tall = SAID[kind]
    header = read_header(drawn(said, tall))
    rules = Images.model_validate({"size": (96, 96), "fit": fit})
    labels = prepare_labels(circle(tall).astype(np.uint8), header.pixel, rules)
    back = unfit(labels[None].float(), flat_place(Path("x"), header, 0), rules)[0].numpy() > 0.5
    assert back.shape == circle(tall).shape
    assert np.mean(back != circle(tall)) < 0.03


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
def test_square_pixels_are_prepared_as_before_to_the_bit(fit: str) -> None:
    values = np.random.default_rng(0).random((37, 53), np.float32)
    rules = Images.model_validate({"size": (32, 40), "fit": fit})
    unknown = prepare(values, None, rules)
    for spacing in ((0.7, 0.7), (0.7, 0.70001), (0.0, 0.0)):
        assert torch.equal(prepare(values, spacing, rules), unknown)


def test_stretch_fills_the_grid_whatever_the_pixels() -> None:
    values = np.random.default_rng(0).random((37, 53), np.float32)
    rules = Images.model_validate({"size": (32, 40), "fit": "stretch"})
    assert torch.equal(prepare(values, (2.0, 1.0), rules), prepare(values, None, rules))


def test_pixels_of_an_absurd_shape_are_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    save(site / "a.dcm", drawn({"PixelSpacing": [1e6, 1.0]}, 1.0))
    write_labels(site, [{"PatientID": "P1", "ill": 1}])
    config = config_of(cohort="{images: {size: [16, 16], fit: crop}, smallest_cohort: 1}")
    with pytest.raises(Exception, match="TOO_LARGE"):
        load(site, config, tmp_path / "cache")
