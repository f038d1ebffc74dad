"""Letters at the sides of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.reading.read import read_dataset, read_header
from client.results.identity import Kind
from client.results.orientation import sides_of
from client.results.writing import write_results
from tests.client.scores import diagnosed, radiograph, volume


def sides(path: Path, **values: object) -> tuple[str, str, str, str] | None:
    """Return left, right, top and bottom of a file with these attributes."""
    dataset = dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    whole = read_dataset(path)
    found = sides_of(whole, read_header(whole), 0)
    return None if found is None else (found.left, found.right, found.top, found.bottom)


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ([1, 0, 0, 0, 1, 0], ("R", "L", "A", "P")),  # axial
        ([1, 0, 0, 0, 0, -1], ("R", "L", "H", "F")),  # coronal
        ([0, 1, 0, 0, 0, -1], ("A", "P", "H", "F")),  # sagittal
        ([0, -1, 0, 1, 0, 0], ("P", "A", "R", "L")),  # turned by a quarter
        ([0.8, 0.6, 0, -0.6, 0.8, 0], ("RA", "LP", "AL", "PR")),  # oblique, nearest axis first
        ([0.99, 0.14, 0, -0.14, 0.99, 0], ("R", "L", "A", "P")),  # by eight degrees
    ],
)
def test_sides_follow_from_where_rows_and_columns_lie(
    tmp_path: Path, cosines: list[float], expected: tuple[str, str, str, str]
) -> None:
    path = volume(tmp_path, 2)[0]
    assert sides(path, ImageOrientationPatient=cosines) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["L", "F"], ("R", "L", "H", "F")),
        (["P", "FR"], ("A", "P", "HL", "FR")),
        (["LE", "V"], None),  # a quadruped's
        (["L", ""], None),
        ("L", None),
    ],
)
def test_a_projection_has_the_sides_that_its_header_names(
    tmp_path: Path, given: object, expected: tuple[str, str, str, str] | None
) -> None:
    (path,) = radiograph(tmp_path)
    assert sides(path) is None
    assert sides(path, PatientOrientation=given) == expected


def test_letters_stand_beside_the_image_and_the_capture_names_its_sides(tmp_path: Path) -> None:
    pictures = {}
    for name, cosines in {"there": [1, 0, 0, 0, 1, 0], "other": [0, 1, 0, 0, 0, -1]}.items():
        sources = volume(tmp_path / name)
        for path in sources:
            one = dcmread(path)
            one.ImageOrientationPatient = cosines
            one.save_as(path)
        results = write_results(diagnosed(sources), tmp_path / f"{name} out")
        (capture,) = [dcmread(one.path) for one in results if one.kind is Kind.CAPTURE]
        pictures[name] = capture
    assert list(pictures["there"].PatientOrientation) == ["L", "P"]
    assert list(pictures["other"].PatientOrientation) == ["P", "F"]
    there, other = pictures["there"].pixel_array, pictures["other"].pixel_array
    assert there.shape == other.shape
    unlike = (there != other).any(axis=2)
    inside = np.zeros_like(unlike)
    inside[40:-120, 38:-38] = True
    assert (unlike & ~inside).any(), "other letters"
    margin = unlike[:, :38]
    assert margin.any(), "at the left, too"
    plain = write_results(diagnosed(radiograph(tmp_path / "cr")), tmp_path / "cr out")
    (capture,) = [dcmread(one.path) for one in plain if one.kind is Kind.CAPTURE]
    assert not capture.PatientOrientation


def test_a_dataset_without_either_has_no_sides(tmp_path: Path) -> None:
    (path,) = radiograph(tmp_path)
    whole = read_dataset(path)
    assert sides_of(Dataset(), read_header(whole), 0) is None
