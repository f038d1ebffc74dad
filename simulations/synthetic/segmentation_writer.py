"""Masks of invented patients: PNG for pictures, DICOM SEG for volumes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage

from simulations.synthetic.dicom_writer import (
    Encoded,
    InventedStudy,
    Machine,
    encode,
    machine_elements,
    pixel_mm,
    position,
    study_elements,
    write_file,
)


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write a 2-D mask as a grey PNG, 255 inside."""
    from PIL import Image

    Image.fromarray(mask * np.uint8(255)).save(path, compress_level=1)


def write_segmentation(
    path: Path, mask: NDArray[np.uint8], study: InventedStudy, machine: Machine
) -> None:
    """Write a binary DICOM SEG with one segment and the slices that hold it (PS3.3 A.51).

    mask is (slices, rows, columns); without a lesion the first slice is written, empty, because
    the standard wants at least one frame.
    """
    frames = [int(index) for index in np.flatnonzero(mask.any(axis=(1, 2)))] or [0]
    own = study_elements(study, "segmentation")
    own.SOPInstanceUID = study.uid("segmentation", "image")
    own.FrameOfReferenceUID = study.uid("frame")
    own.NumberOfFrames = len(frames)
    own.ReferencedSeriesSequence = [
        _item(
            SeriesInstanceUID=study.series_uid,
            ReferencedInstanceSequence=[_source(study, index) for index in frames],
        )
    ]
    _put_dimensions(own, study)
    own.PerFrameFunctionalGroupsSequence = [
        _frame(study, machine, place, index) for place, index in enumerate(frames, 1)
    ]
    bits = np.packbits(mask[frames].reshape(-1), bitorder="little").tobytes()
    own.PixelData = bits + bytes(len(bits) % 2)
    own["PixelData"].VR = "OB"
    elements = {**_shared(machine, *mask.shape[1:]), **encode(own, ExplicitVRLittleEndian)}
    write_file(path, elements, ExplicitVRLittleEndian)


def _item(**elements: object) -> Dataset:
    """Return an item of a sequence; lists of items become sequences."""
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    return Sequence([_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


@lru_cache
def _shared(machine: Machine, rows: int, columns: int) -> Encoded:
    """Return the elements that all segmentations of this machine share."""
    dataset = machine_elements(machine, SegmentationStorage, "SEG")
    dataset.SeriesNumber = 2
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentLabel = "LESION"
    dataset.ContentDescription = "Lesion of an invented patient"
    dataset.ContentCreatorName = ""
    dataset.SegmentationType = "BINARY"
    dataset.LossyImageCompression = "00"
    dataset.PositionReferenceIndicator = ""
    dataset.SegmentSequence = [
        _item(
            SegmentNumber=1,
            SegmentLabel="lesion",
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=_code(
                "49755003", "SCT", "Morphologically Abnormal Structure"
            ),
            SegmentedPropertyTypeCodeSequence=_code("52988006", "SCT", "Lesion"),
        )
    ]
    dataset.SharedFunctionalGroupsSequence = [_geometry(machine, rows)]
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelRepresentation = 0
    return encode(dataset, ExplicitVRLittleEndian)


def _geometry(machine: Machine, rows: int) -> Dataset:
    return _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[
            _item(
                PixelSpacing=[pixel_mm(rows), pixel_mm(rows)],
                SliceThickness=machine.slice_mm,
                SpacingBetweenSlices=machine.slice_mm,
            )
        ],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=1)],
    )


def _put_dimensions(dataset: Dataset, study: InventedStudy) -> None:
    """Say that frames are told apart by segment and position (PS3.3 C.7.6.17)."""
    organization = study.uid("dimension")
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    # Each pointer is followed by the functional group that holds it.
    pointers = (
        ("ReferencedSegmentNumber", "SegmentIdentificationSequence"),
        ("ImagePositionPatient", "PlanePositionSequence"),
    )
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=tag_for_keyword(pointer),
            FunctionalGroupPointer=tag_for_keyword(group),
        )
        for pointer, group in pointers
    ]


def _source(study: InventedStudy, index: int) -> Dataset:
    return _item(
        ReferencedSOPClassUID=CTImageStorage,
        ReferencedSOPInstanceUID=study.uid("image", str(index)),
    )


def _frame(study: InventedStudy, machine: Machine, place: int, index: int) -> Dataset:
    """Return one frame's functional groups (PS3.3 C.7.6.16)."""
    source = _source(study, index)
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = _code(
        "121322", "DCM", "Source image for image processing operation"
    )
    return _item(
        FrameContentSequence=[_item(DimensionIndexValues=[1, place])],
        PlanePositionSequence=[_item(ImagePositionPatient=position(index, machine))],
        DerivationImageSequence=[
            _item(
                SourceImageSequence=[source],
                DerivationCodeSequence=_code("113076", "DCM", "Segmentation"),
            )
        ],
    )
