"""A share that the PACS exports to: whole files are taken over, growing ones wait."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from client.dicom.reasons import Reason
from client.pacs.export_folder import REST_SECONDS, ExportFolder, export_folder
from client.pacs.image_source import PacsQuery
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import image, noise, save
from tests.client.pacs.cohorts import Site

EVERYTHING = PacsQuery(key=None, value="", modality="", first_day="", last_day="")


def rested(path: Path) -> Path:
    before = time.time() - REST_SECONDS - 1
    os.utime(path, (before, before))
    return path


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """Return a share with two whole studies of two patients, exported in folders of their own."""
    for patient in ("A", "B"):
        for number in range(3):
            dataset = image(noise(16, 16), patient=patient, number=number)
            rested(save(tmp_path / "share" / patient / f"IM{number}", dataset))
    return tmp_path / "share"


def config(share: Path) -> PacsConfig:
    return PacsConfig.model_validate({"route": "folder", "folder": share})


def test_whole_files_of_the_cohort_are_taken_over(share: Path, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", ["A"])
    counted = site.pull(config(share)).counted
    assert (counted.complete, counted.instances, counted.stated) == (1, 3, 3)
    contents = {path.read_bytes() for path in site.files().values()}
    assert contents == {path.read_bytes() for path in (share / "A").iterdir()}


def test_a_file_that_grows_waits_for_a_later_pull(share: Path, tmp_path: Path) -> None:
    late = image(noise(16, 16), patient="A", number=3)
    path = save(share / "A" / "IM3", late)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    source = ExportFolder(share, tmp_path / "data")
    assert len(list(source.find(EVERYTHING))) == 2
    ((growing, problem),) = source.unusable
    assert (growing, problem.reason) == (path, Reason.PARTIAL_WRITE)
    site = Site(tmp_path / "site", ["A"])
    growing_says = Reason.PARTIAL_WRITE.value
    assert site.pull(config(share)).counted.instances == 3
    assert site.said == [f"1 files in {share} are left out: PARTIAL_WRITE. {growing_says}"]
    path.write_bytes(whole)
    rested(path)
    assert site.pull(config(share)).counted.instances == 4
    assert site.files()[late.SOPInstanceUID].read_bytes() == whole


def test_what_is_no_dicom_is_listed_and_stops_nothing(share: Path, tmp_path: Path) -> None:
    note = share / "readme.txt"
    note.write_text("Exported by the PACS")
    rested(note)
    source = ExportFolder(share, tmp_path / "data")
    assert len(list(source.find(EVERYTHING))) == 2
    assert [(path, problem.reason) for path, problem in source.unusable] == [
        (note, Reason.NOT_DICOM)
    ]


def test_a_share_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"There is no folder .*nowhere \(pacs\.folder\)"),
        export_folder(config(tmp_path / "nowhere"), tmp_path / "data"),
    ):
        pass
