from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from client.dicom.headers import scanned as header_scan
from client.dicom.headers.elements import UnusualHeader
from client.dicom.headers.header import parse_header, read_file
from client.dicom.headers.instance import Instance
from client.dicom.headers.scanned import scan
from client.dicom.reading.files import File, files_below
from tests.client.dicom_files import SHARED, image, noise, placed

Change = Callable[[FileDataset], object]


def write(path: Path, change: Change, syntax: str) -> File:
    dataset = placed(image(noise(6, 7)), (1.5, -2, 3e-1))
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    change(dataset)
    content = io.BytesIO()
    dcmwrite(content, dataset, enforce_file_format=True)
    path.write_bytes(content.getvalue())
    return File(path=path, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns)


def is_easy(file: File) -> bool:
    try:
        scan(file.path, file.size)
    except UnusualHeader:
        return False
    return True


def _sequence(*, undefined: bool, items_undefined: bool = False, deep: int = 1) -> Change:
    def change(dataset: FileDataset) -> None:
        holder: Dataset = dataset
        for _ in range(deep):
            item = Dataset()
            item.CodeValue, item.CodeMeaning = "T-D4000", "Abdomen"
            item.is_undefined_length_sequence_item = items_undefined
            holder.ProcedureCodeSequence = Items([item])
            holder["ProcedureCodeSequence"].is_undefined_length = undefined
            holder = item

    return change


def _set(**values: object) -> Change:
    def change(dataset: FileDataset) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


def _private(size: int) -> Change:
    def change(dataset: FileDataset) -> None:
        block = dataset.private_block(0x0019, "SOMEBODY", create=True)
        block.add_new(0x10, "OB", bytes(size))

    return change


def _charset(name: str, text: str) -> Change:
    def change(dataset: FileDataset) -> None:
        dataset.SpecificCharacterSet = name
        dataset.PatientID, dataset.StudyDescription = text, text

    return change


EASY: list[Change] = [
    _set(),
    _sequence(undefined=False),
    _sequence(undefined=True),
    _sequence(undefined=True, items_undefined=True),
    _sequence(undefined=True, items_undefined=True, deep=5),
    _private(30),
    _private(9000),
    _private(300_000),
    _charset("ISO_IR 100", "Jürgen Müller"),
    _charset("ISO_IR 192", "Łódź 東京"),
    _set(PatientAge="045Y", PatientSex="F", PatientBirthDate="19601231", InstanceNumber=7),
    _set(RescaleSlope="1.5e-2", RescaleIntercept=" -1024"),
    _set(PatientID="", StudyDate=""),
    _set(ImageType=["DERIVED", "PRIMARY", "LOCALIZER"]),
    _set(SliceThickness="2.50 "),
    _set(LossyImageCompression="01", BurnedInAnnotation="YES", Laterality="L"),
    lambda dataset: dataset.__delitem__("ImagePositionPatient"),
    lambda dataset: dataset.__delitem__("PixelData"),
    lambda dataset: dataset.__delitem__("SOPClassUID"),
]

HARD: list[Change] = [
    _charset("ISO 2022 IR 87", "ヤマダ"),
    _charset("ISO_IR 13", "ﾔﾏﾀﾞ"),
    _charset("GB18030", "王"),
    _set(PatientID="a\\b"),
    _sequence(undefined=True, deep=40),
    _set(NumberOfFrames=3),
    _set(ModalityLUTSequence=Items([Dataset()])),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("change", EASY)
def test_the_easy_case_is_scanned_and_its_row_is_pydicoms(
    tmp_path: Path, change: Change, syntax: str
) -> None:
    file = write(tmp_path / "x", change, syntax)
    assert is_easy(file)
    assert read_file(file) == parse_header(file)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", HARD)
def test_what_is_not_easy_is_left_to_pydicom(tmp_path: Path, change: Change) -> None:
    file = write(tmp_path / "x", change, ExplicitVRLittleEndian)
    assert read_file(file) == parse_header(file)
    if isinstance(read_file(file), Instance):
        assert "scan" not in scanned_rows(file)


def scanned_rows(file: File) -> list[str]:
    """Return "scan" where the scanner alone made the row."""
    from client.dicom.headers.header import _described

    try:
        _described(file, scan(file.path, file.size))
    except UnusualHeader:
        return []
    return ["scan"]


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_syntaxes_are_left_to_pydicom(tmp_path: Path, syntax: str) -> None:
    file = write(tmp_path / "x", _set(), syntax)
    assert not is_easy(file)
    assert isinstance(read_file(file), Instance)
    assert read_file(file) == parse_header(file)


def test_a_header_longer_than_the_first_bytes_is_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "x", _private(5000), ExplicitVRLittleEndian)
    expected = read_file(file)
    for first in (300, 500, 1000, 5600):
        monkeypatch.setattr(header_scan, "FIRST_BYTES", first)
        assert is_easy(file)
        assert read_file(file) == expected


def test_a_file_cut_anywhere_has_pydicoms_row(tmp_path: Path) -> None:
    whole = write(tmp_path / "x", _sequence(undefined=True), ExplicitVRLittleEndian)
    content = whole.path.read_bytes()
    for length in range(1, len(content), 7):
        whole.path.write_bytes(content[:length])
        file = File(path=whole.path, size=length, mtime_ns=0)
        assert read_file(file) == parse_header(file), length


@pytest.mark.needs_shared_data
@pytest.mark.skipif(not (SHARED / "dicom-zoo").is_dir(), reason="public cohorts are not here")
@pytest.mark.parametrize("folder", ["dicom-zoo", "breast-us/west", "hippocampus"])
def test_real_files_have_pydicoms_row(folder: str) -> None:
    files = files_below(SHARED / folder)[:250]
    easy = 0
    for file in files:
        assert read_file(file) == parse_header(file), file.path
        easy += is_easy(file)
    assert easy > 0.6 * len(files)


def test_a_header_that_only_mentions_the_deflated_syntax_is_not_inflated(tmp_path: Path) -> None:
    mention = _set(StudyDescription=f"was {DeflatedExplicitVRLittleEndian}", PatientID="a\\b")
    file = write(tmp_path / "x", mention, ExplicitVRLittleEndian)
    assert isinstance(read_file(file), Instance)
