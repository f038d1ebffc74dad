"""Received files are checked before they get a name, and no name leads out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from client.dicom.reasons import Reason, UnusableFile
from client.pacs.received_file import durable, leftovers, place
from tests.client.dicom_files import image, noise, save


def content(dataset: FileDataset, folder: Path) -> bytes:
    return save(folder / "made.dcm", dataset).read_bytes()


def refused(data: Path, sent: bytes) -> Reason:
    with pytest.raises(UnusableFile) as refusal:
        place(data, [sent])
    assert [path for path in data.rglob("*") if path.is_file()] == []
    return refusal.value.reason


def test_a_file_lies_under_its_uids_as_it_was_sent(tmp_path: Path) -> None:
    dataset = image(noise(8, 8))
    sent = content(dataset, tmp_path)
    data = tmp_path / "data"
    landed = place(data, [sent[:100], memoryview(sent)[100:]])
    assert landed.path == (
        data
        / dataset.StudyInstanceUID
        / dataset.SeriesInstanceUID
        / f"{dataset.SOPInstanceUID}.dcm"
    )
    assert landed.path.read_bytes() == sent
    assert landed.size == len(sent)
    durable([landed.path])


@pytest.mark.parametrize("level", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "/etc/x", "1.2/../3", "", "1." * 40])
@pytest.mark.filterwarnings("ignore:.*alue for VR UI:UserWarning")
def test_a_uid_that_is_a_path_is_refused(tmp_path: Path, level: str, name: str) -> None:
    dataset = image(noise(8, 8))
    setattr(dataset, level, name)
    data = tmp_path / "data" / "deeper"
    data.mkdir(parents=True)
    assert refused(data, content(dataset, tmp_path)) == Reason.MISSING_HEADER
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "made.dcm"]


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_missing_pixels_are_noticed(tmp_path: Path, syntax: UID | None) -> None:
    dataset = image(noise(64, 64))
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    data = tmp_path / "data"
    data.mkdir()
    whole = content(dataset, tmp_path)
    place(tmp_path / "whole", [whole])
    if syntax != DeflatedExplicitVRLittleEndian:
        assert refused(data, whole[:-100]) == Reason.TRUNCATED_PIXELS
    dataset.PixelData = dataset.PixelData[:-100]
    assert refused(data, content(dataset, tmp_path)) == Reason.TRUNCATED_PIXELS


def test_compressed_pixels_without_their_end_are_noticed(tmp_path: Path) -> None:
    dataset = image(noise(64, 64))
    dataset.compress(RLELossless)
    whole = content(dataset, tmp_path)
    assert place(tmp_path / "whole", [whole]).path.read_bytes() == whole
    data = tmp_path / "data"
    data.mkdir()
    for missing in (1, 8, 100):
        assert refused(data, whole[:-missing]) == Reason.TRUNCATED_PIXELS


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert refused(data, b"") == Reason.EMPTY_FILE
    assert refused(data, b"<html>Please log in</html>" * 20) == Reason.NOT_DICOM


def test_half_written_files_of_a_crash_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / ".12-34-0.part").write_bytes(b"half")
    (tmp_path / "labels.csv").write_bytes(b"PatientID\n")
    leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]
