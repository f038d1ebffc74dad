"""Folders that hold no DICOM: the reason names what lies there, and what to do."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.dicom.reasons import Reason
from client.files.other_formats import other_formats
from common.platform.errors import CohortError
from tests.client.dicom_files import config_of, image, load, noise, save, write_labels
from tests.client.terminals import Site

PICTURE = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


def written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "kind", "remedy"),
    [
        ("P0.nii", b"\x5c\x01\0\0" + b"\0" * 400, "NIfTI files", "a NIfTI can only be a mask"),
        ("P0.nii.gz", b"\x1f\x8b" + b"\0" * 90, "NIfTI files", "convert them to DICOM"),
        ("P0.nrrd", b"NRRD0004\n", "NRRD files", "convert"),
        ("P0.mha", b"ObjectType = Image\n", "MetaImage", "convert"),
        ("P0.svs", b"II*\0" + b"\0" * 90, "slides (SVS)", "convert"),
        ("P0.tif", b"MM\0*" + b"\0" * 90, "TIFF pictures", "convert"),
        ("P0", b"\xff\xd8\xff\xe0" + b"\0" * 90, "JPEG pictures", "convert"),  # by its bytes
        ("P0.dcm", b"\x89PNG\r\n\x1a\n" + b"\0" * 90, "PNG pictures", "convert"),
        ("P0.tar.gz", b"\x1f\x8b" + b"\0" * 90, "TAR archives", "unpack them"),
        ("P0.7z", b"7z\xbc\xaf\x27\x1c" + b"\0" * 90, "7z archives", "unpack them"),
        ("DICOMDIR", b"\0" * 128 + b"DICM", "DICOMDIR", "copy the whole medium"),
    ],
)
def test_each_format_is_named_with_its_remedy(
    tmp_path: Path, name: str, content: bytes, kind: str, remedy: str
) -> None:
    written(tmp_path / "P0" / name, content)
    said = other_formats(tmp_path)
    assert f"1 x {kind}" in said
    assert "reads images from DICOM alone" in said
    assert remedy in said


def test_archives_are_told_by_their_bytes(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.dcm", image(noise(8, 8)))
    with zipfile.ZipFile(tmp_path / "study", "w") as archive:
        archive.write(tmp_path / "in" / "a.dcm")
    with tarfile.open(tmp_path / "other", "w") as tar:
        tar.add(tmp_path / "in" / "a.dcm")
    said = other_formats(tmp_path)
    assert "1 x ZIP archives, 1 x TAR archives" in said or "1 x TAR archives, 1 x ZIP" in said
    assert "unpack them into the folder" in said


def test_dicom_tables_and_masks_that_rows_name_are_not_meant(tmp_path: Path) -> None:
    save(tmp_path / "a.dcm", image(noise(8, 8)))
    (tmp_path / "masks").mkdir()
    PICTURE.save(tmp_path / "masks" / "P1.png")
    (tmp_path / "labels.csv").write_text("PatientID,mask\nP1,masks/P1.png\n")
    (tmp_path / "labels.xlsx").write_bytes(b"PK\x03\x04")
    assert other_formats(tmp_path, [{"PatientID": "P1", "mask": "masks/P1.png"}]) == ""
    assert "1 x PNG pictures" in other_formats(tmp_path)


def test_rows_without_an_image_name_the_format(tmp_path: Path) -> None:
    site = tmp_path / "s"
    write_labels(site, [{"PatientID": f"P{n}", "ill": n % 2} for n in range(3)])
    for number in range(3):
        PICTURE.save(site / f"P{number}.png")
    with pytest.raises(CohortError, match=r"3 x NO_IMAGE .*The folder holds 3 x PNG pictures"):
        load(site, config_of(), tmp_path / "cache")
    save(site / "P0.dcm", image(noise(20, 12), "P0"))
    cohort = load(site, config_of(), tmp_path / "cache")
    lonely = [one for one in cohort.unusable if one.reason is Reason.NO_IMAGE]
    assert [one.what for one in lonely] == ["line 3", "line 4"]
    assert all("The folder holds 3 x PNG pictures" in one.detail for one in lonely)


def test_index_and_report_name_the_format(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.set_up()
    write_labels(site.data, [{"PatientID": f"P{n}", "ill": n % 2} for n in range(3)])
    for number in range(3):
        PICTURE.save(site.data / f"P{number}.jpg")
    assert "The folder holds 3 x JPEG pictures" in site.types("index").out
    save(site.data / "P0.dcm", image(noise(20, 12), "P0"))
    config = tmp_path / "run.yaml"
    config.write_text(config_of().to_yaml(), encoding="utf-8")
    assert "The folder holds 3 x JPEG pictures" in site.types("index", config).out
    site.types("report", config)
    page = (site.home.report / "report.html").read_text(encoding="utf-8")
    assert "The folder holds 3 x JPEG pictures" in page
