"""Files that are joined from bytes are the DICOM that pydicom itself would write."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from client.dicom.masks.seg import read_segmentation
from client.dicom.reading.read import read_header
from client.dicom.reading.volume import order_slices
from simulations.synthetic.dicom_writer import (
    CT_LOW,
    LEVELS,
    InventedStudy,
    Machine,
    TransferSyntax,
    stored_ct,
    write_ct,
    write_xray,
)
from simulations.synthetic.segmentation_writer import write_segmentation

SYNTAXES: tuple[TransferSyntax, ...] = get_args(TransferSyntax)
STUDY = InventedStudy(patient="SIM00C0FFEE", number=1, age=61, sex="f")
#: Odd sizes: padding to even lengths is where writers go wrong.
SHAPE = (5, 33, 37)


def machine(syntax: TransferSyntax, *, inverted: bool = False, signed: bool = False) -> Machine:
    """Return a machine that writes this transfer syntax."""
    return Machine(
        hospital="test",
        manufacturer="Acme",
        transfer_syntax=syntax,
        inverted=inverted,
        signed=signed,
        slice_mm=4.0,
    )


def picture() -> NDArray[np.float32]:
    """Return (rows, columns) in 0 to 1, with both ends."""
    values = np.random.default_rng(0).random(SHAPE[1:], dtype=np.float32)
    values[0, 0], values[-1, -1] = 0, 1
    return values


def hounsfield() -> NDArray[np.float32]:
    """Return a volume from air to bone."""
    return np.random.default_rng(0).uniform(-1000, 1500, SHAPE).astype(np.float32)


def quantities(dataset: Dataset) -> NDArray[np.float64]:
    """Return Hounsfield units."""
    stored = dataset.pixel_array.astype(np.float64)
    return stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("inverted", [False, True])
def test_an_xray_reads_back_with_its_pixels(
    tmp_path: Path, syntax: TransferSyntax, *, inverted: bool
) -> None:
    write_xray(tmp_path / "x.dcm", picture(), STUDY, machine(syntax, inverted=inverted))
    dataset = dcmread(tmp_path / "x.dcm")
    expected = np.round(picture() * LEVELS)
    assert dataset.file_meta.TransferSyntaxUID == machine(syntax).syntax
    assert dataset.PhotometricInterpretation == ("MONOCHROME1" if inverted else "MONOCHROME2")
    assert np.array_equal(dataset.pixel_array, LEVELS - expected if inverted else expected)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
def test_a_ct_series_reads_back_in_hounsfield_units_and_in_order(
    tmp_path: Path, syntax: TransferSyntax, *, signed: bool
) -> None:
    write_ct(tmp_path, hounsfield(), STUDY, machine(syntax, signed=signed))
    slices = [dcmread(path) for path in sorted(tmp_path.iterdir())]
    read = np.stack([quantities(dataset) for dataset in slices])
    assert np.array_equal(read, np.round(hounsfield()))
    assert slices[0].PixelRepresentation == int(signed)
    order, geometry = order_slices([(read_header(d), 0) for d in reversed(slices)])
    assert order == [4, 3, 2, 1, 0]
    assert geometry.spacing == pytest.approx((4.0, 360 / 33, 360 / 33), rel=1e-4)
    assert len({d.SOPInstanceUID for d in slices}) == 5
    assert {d.SeriesInstanceUID for d in slices} == {STUDY.series_uid}


def test_hounsfield_units_that_do_not_fit_are_cut_off() -> None:
    extreme = np.array([[[-5000, 90000]]], np.float32)
    assert stored_ct(extreme, signed=False).tolist() == [[[0, LEVELS]]]
    assert LEVELS + CT_LOW == 3071
    assert stored_ct(extreme, signed=True).view(np.int16).tolist() == [[[-2000, 4000]]]


def written(folder: Path, syntax: TransferSyntax) -> list[Path]:
    """Return one file of each kind."""
    write_xray(folder / "x.dcm", picture(), STUDY, machine(syntax))
    write_ct(folder / "ct", hounsfield(), STUDY, machine(syntax))
    mask = (hounsfield() > 1000).astype(np.uint8)
    write_segmentation(folder / "s.dcm", mask, STUDY, machine(syntax))
    return [folder / "x.dcm", folder / "ct" / "0002.dcm", folder / "s.dcm"]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_bytes_are_those_that_pydicom_writes(tmp_path: Path, syntax: TransferSyntax) -> None:
    for path in written(tmp_path, syntax):
        dataset = dcmread(path)
        twin = BytesIO()
        # False: the header as it is, without the name of pydicom's version.
        dataset.save_as(twin, enforce_file_format=False)
        assert twin.getvalue() == path.read_bytes(), path.name


#: Type 1 elements of the modules (PS3.3 A.2, A.3, A.51) that a reader relies on.
PATIENT_STUDY = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
)
PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
TYPE_ONE = {
    "x.dcm": (*PATIENT_STUDY, "Rows", "BitsStored", "ImageType", "BodyPartExamined"),
    "0002.dcm": (
        *PATIENT_STUDY,
        *PLANE,
        "RescaleSlope",
        "RescaleIntercept",
        "FrameOfReferenceUID",
        "ImageType",
    ),
    "s.dcm": (
        *PATIENT_STUDY,
        "SegmentSequence",
        "SegmentationType",
        "DimensionIndexSequence",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "ReferencedSeriesSequence",
        "ContentLabel",
        "FrameOfReferenceUID",
        "NumberOfFrames",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "ManufacturerModelName",
    ),
}


def test_required_elements_are_there_and_identifiers_are_valid(tmp_path: Path) -> None:
    for path in written(tmp_path, "explicit"):
        dataset = dcmread(path)
        for keyword in TYPE_ONE[path.name]:
            assert dataset[keyword].value not in ("", None), keyword
        assert dataset.PatientID == "SIM00C0FFEE"
        assert dataset.AccessionNumber == STUDY.accession
        assert len(STUDY.accession) <= 16
        assert all(
            UID(element.value).is_valid and len(element.value) <= 64
            for element in dataset.iterall()
            if element.VR == "UI" and element.VM == 1
        )


def test_a_segmentation_lies_on_its_images(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 4:9, 7:20] = mask[3, 30:33, 0:5] = 1
    write_ct(tmp_path / "ct", hounsfield(), STUDY, machine("rle"))
    write_segmentation(tmp_path / "s.dcm", mask, STUDY, machine("rle"))
    images = [dcmread(path) for path in sorted((tmp_path / "ct").iterdir())]
    _, geometry = order_slices([(read_header(d), 0) for d in images])
    read = read_segmentation(tmp_path / "s.dcm", SHAPE, geometry, {"lesion": (1,)})
    assert np.array_equal(read, mask)
    segmentation = dcmread(tmp_path / "s.dcm")
    assert segmentation.NumberOfFrames == 2
    assert segmentation.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    for frame, index in enumerate((1, 3)):
        group = segmentation.PerFrameFunctionalGroupsSequence[frame]
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == images[index].SOPInstanceUID
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert place == images[index].ImagePositionPatient


def test_a_segmentation_is_understood_by_highdicom(tmp_path: Path) -> None:
    from highdicom.seg import segread

    mask = (hounsfield() > 1000).astype(np.uint8)
    mask[2] = 0
    write_segmentation(tmp_path / "s.dcm", mask, STUDY, machine("explicit"))
    read = segread(tmp_path / "s.dcm")
    held = [0, 1, 3, 4]
    sources = [STUDY.uid("image", str(index)) for index in held]
    pixels = read.get_pixels_by_source_instance(sources, combine_segments=False)
    assert np.array_equal(pixels[..., 0], mask[held])


def test_a_mask_without_a_lesion_is_one_empty_frame(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "s.dcm", np.zeros(SHAPE, np.uint8), STUDY, machine("explicit"))
    dataset = dcmread(tmp_path / "s.dcm")
    assert dataset.NumberOfFrames == 1
    assert not dataset.pixel_array.any()
