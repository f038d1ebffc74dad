"""How an image was made: scanned, parsed and from the index alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.dicom.headers.header import parse_header, read_file
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.reading.files import File
from client.dicom.reading.technique import Technique
from tests.client.dicom_files import image, noise, placed, save


def classic(**more: object) -> FileDataset:
    one = placed(image(noise(4, 4)), (0, 0, 0))
    for name, value in more.items():
        setattr(one, name, value)
    return one


def read(path: Path, dataset: FileDataset) -> Technique:
    """Return what is read, which both readers and the index give alike."""
    save(path / "site" / "a.dcm", dataset)
    status = (path / "site" / "a.dcm").stat()
    file = File(path=path / "site" / "a.dcm", size=status.st_size, mtime_ns=status.st_mtime_ns)
    row = read_file(file)
    assert row == parse_header(file)
    with Index(path / "index.sqlite") as index:
        index.update(path / "site")
        assert list(index.instances()) == [row]
    assert isinstance(row, Instance)
    return row.technique


def test_a_classic_header_says_how_it_was_made(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        classic(
            ProtocolName="t1_mprage",
            SequenceName="*tfl3d1",
            ScanningSequence=["GR", "IR"],
            ContrastBolusAgent="Gadovist",
            EchoTime="2.5",
            RepetitionTime="1900",
            InversionTime="900",
            ConvolutionKernel=["I30f", "2"],
            ViewPosition="CC",
            SeriesDate="20200102",
            SeriesTime="030405.5",
        ),
    )
    assert found == Technique(
        protocol="t1_mprage",
        sequence_name="*tfl3d1",
        scanning_sequence="GR\\IR",
        contrast="Gadovist",
        kernel="I30f\\2",
        view="CC",
        made="20200102030405.5",
        echo_time=2.5,
        repetition_time=1900,
        inversion_time=900,
    )


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("maker", "place", "value", "b_value"),
    [
        ("SIEMENS", (0x0019, "SIEMENS MR HEADER", 0x0C), "1000", 1000),
        ("GE MEDICAL SYSTEMS", (0x0043, "GEMS_PARM_01", 0x39), [1000000800, 8, 0, 0], 800),
        ("GE MEDICAL SYSTEMS", (0x0043, "GEMS_PARM_01", 0x39), [700, 8, 0, 0], 700),
        ("Philips", (0x0019, "SIEMENS MR HEADER", 0x0C), "1000", None),
    ],
)
def test_b_values_of_private_elements(
    tmp_path: Path,
    syntax: UID,
    maker: str,
    place: tuple[int, str, int],
    value: object,
    b_value: float | None,
) -> None:
    one, (group, creator, element) = classic(Manufacturer=maker), place
    one.file_meta.TransferSyntaxUID = syntax
    one.private_block(group, creator, create=True).add_new(element, "IS", value)
    assert read(tmp_path, one).b_value == b_value


def test_an_enhanced_object_says_it_in_its_groups_where_all_frames_agree(tmp_path: Path) -> None:
    one = placed(image(noise(2, 4, 4, dtype="uint8", top=250)), (0, 0, 0))
    shared, echo, contrast = Dataset(), Dataset(), Dataset()
    echo.EffectiveEchoTime = 80.0
    shared.MREchoSequence = [echo]
    contrast.CodeMeaning = "Gadolinium agent"
    one.ContrastBolusAgentSequence = [contrast]
    one.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for value in (0.0, 1000.0):
        frame, diffusion, modifier = Dataset(), Dataset(), Dataset()
        diffusion.DiffusionBValue, modifier.InversionTimes = value, [2500.0]
        frame.MRDiffusionSequence, frame.MRModifierSequence = [diffusion], [modifier]
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = frames
    found = read(tmp_path, one)
    assert (found.echo_time, found.inversion_time, found.b_value) == (80.0, 2500.0, None)
    assert found.contrast == "Gadolinium agent"


def test_a_value_that_is_no_number_is_not_said(tmp_path: Path) -> None:
    one = classic(Manufacturer="SIEMENS")
    one.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "LO", "many")
    assert read(tmp_path, one).b_value is None
