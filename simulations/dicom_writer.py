"""Valid DICOM for invented patients: CR images, CT series and segmentations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
)

TransferSyntax = Literal["explicit", "implicit", "rle", "jpeg-ls"]
_SYNTAXES: dict[TransferSyntax, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
}
#: 12-bit CR: grey levels of the full range.
_XRAY_LEVELS = 4095
#: CT: a picture of 0 to 1 covers -1000 to 1000 Hounsfield units.
_CT_LOW, _CT_RANGE = -1000, 2000
_PIXEL_MM = 3.5
_SLICE_MM = 5.0


@dataclass(frozen=True, kw_only=True)
class Study:
    """What identifies a study; every identifier follows from patient, hospital and number."""

    patient: str
    number: int
    age: int
    sex: Literal["f", "m"]
    hospital: str
    transfer_syntax: TransferSyntax

    @property
    def name(self) -> str:
        """Name for files and folders."""
        return f"{self.patient}-{self.number}"

    @property
    def study_uid(self) -> UID:
        """Study Instance UID."""
        return _uid(self.hospital, self.name, "study")

    @property
    def series_uid(self) -> UID:
        """Series Instance UID."""
        return _uid(self.hospital, self.name, "series")

    @property
    def accession(self) -> str:
        """Accession Number, at most 16 characters (VR SH)."""
        return hashlib.sha256(f"{self.hospital}/{self.name}".encode()).hexdigest()[:12].upper()


def _uid(*parts: str) -> UID:
    """Return a UID of the 2.25 (UUID) form, PS3.5 B.2, from a hash of the parts."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")


def write_xray(
    path: Path, picture: NDArray[np.float32], study: Study, *, inverted: bool
) -> None:
    """Write one CR image; inverted stores MONOCHROME1, where large values are dark."""
    stored = np.round(picture * _XRAY_LEVELS).astype(np.uint16)
    dataset = _dataset(study, ComputedRadiographyImageStorage, "CR", "0")
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.ImagerPixelSpacing = [_PIXEL_MM, _PIXEL_MM]
    dataset.InstanceNumber = 1
    _put_pixels(dataset, (_XRAY_LEVELS - stored) if inverted else stored, bits=12, signed=False)
    dataset.save_as(path, enforce_file_format=True)


def write_ct(folder: Path, volume: NDArray[np.float32], study: Study) -> None:
    """Write a CT series, one file a slice; volume is (slices, rows, columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(volume):
        dataset = _dataset(study, CTImageStorage, "CT", str(index))
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.BodyPartExamined = "ABDOMEN"
        dataset.RescaleIntercept = _CT_LOW
        dataset.RescaleSlope = 1
        dataset.RescaleType = "HU"
        dataset.KVP = 120
        dataset.AcquisitionNumber = 1
        dataset.InstanceNumber = index + 1
        dataset.FrameOfReferenceUID = _uid(study.hospital, study.name, "frame")
        dataset.PositionReferenceIndicator = ""
        _put_geometry(dataset, index)
        stored = np.round(picture * _CT_RANGE).astype(np.uint16)
        _put_pixels(dataset, stored, bits=16, signed=False)
        dataset.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write a 2-D mask as a grey PNG, 255 inside."""
    from PIL import Image

    Image.fromarray(mask * np.uint8(255)).save(path)


def write_segmentation(path: Path, mask: NDArray[np.uint8], study: Study) -> None:
    """Write a binary DICOM SEG with one segment, only the slices that hold it (PS3.3 A.51)."""
    dataset = _dataset(study, SegmentationStorage, "SEG", "seg", series="segmentation")
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    frames = [index for index in range(len(mask)) if mask[index].any()] or [0]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.InstanceNumber = 1
    dataset.ContentLabel = "LESION"
    dataset.ContentDescription = "Lesion of an invented patient"
    dataset.ContentCreatorName = ""
    dataset.SegmentationType = "BINARY"
    dataset.LossyImageCompression = "00"
    dataset.FrameOfReferenceUID = _uid(study.hospital, study.name, "frame")
    dataset.PositionReferenceIndicator = ""
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.SegmentSequence = Sequence([_segment()])
    dataset.ReferencedSeriesSequence = Sequence([_references(study, frames)])
    _put_frames(dataset, study, frames)
    bits = np.packbits(mask[frames].reshape(-1), bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    dataset["PixelData"].VR = "OB"
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = mask.shape[1:]
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.PixelRepresentation = 0
    dataset.save_as(path, enforce_file_format=True)


def _dataset(
    study: Study, sop_class: UID, modality: str, instance: str, *, series: str = "series"
) -> Dataset:
    """Return the patient, study, series and equipment modules with a file header."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = _SYNTAXES[study.transfer_syntax]
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = _uid(study.hospital, study.name, series, instance)
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientName = f"Invented^{study.patient}"
    dataset.PatientID = study.patient
    dataset.PatientBirthDate = ""
    dataset.PatientSex = study.sex.upper()
    dataset.PatientAge = f"{study.age:03d}Y"
    dataset.StudyInstanceUID = study.study_uid
    dataset.SeriesInstanceUID = _uid(study.hospital, study.name, series)
    dataset.StudyID = str(study.number)
    dataset.AccessionNumber = study.accession
    dataset.ReferringPhysicianName = ""
    for name in ("StudyDate", "ContentDate"):
        setattr(dataset, name, "20200101")
    for name in ("StudyTime", "ContentTime"):
        setattr(dataset, name, "120000")
    dataset.Modality = modality
    dataset.Manufacturer = "Synthetic"
    dataset.ManufacturerModelName = f"Phantom {study.hospital}"
    dataset.InstitutionName = f"Synthetic hospital {study.hospital}"
    dataset.SeriesNumber = 1 if series == "series" else 2
    dataset.Laterality = ""
    dataset.PatientOrientation = ""
    return dataset


def _put_geometry(dataset: Dataset, index: int) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-150, -150, _SLICE_MM * index]
    dataset.PixelSpacing = [_PIXEL_MM, _PIXEL_MM]
    dataset.SliceThickness = _SLICE_MM


def _put_pixels(
    dataset: Dataset, stored: NDArray[np.uint16], *, bits: int, signed: bool
) -> None:
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        dataset.PixelData = encapsulate([_compress(stored, syntax)])
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OB" if syntax.is_compressed else "OW"


def _compress(stored: NDArray[np.uint16], syntax: UID) -> bytes:
    if syntax == JPEGLSLossless:
        import imagecodecs

        return bytes(imagecodecs.jpegls_encode(stored))
    from rle.rle import encode_frame

    rows, columns = stored.shape
    return bytes(encode_frame(stored.astype("<u2").tobytes(), rows, columns, 1, 16, "<"))


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def _segment() -> Dataset:
    segment = Dataset()
    segment.SegmentNumber = 1
    segment.SegmentLabel = "lesion"
    segment.SegmentAlgorithmType = "MANUAL"
    segment.SegmentedPropertyCategoryCodeSequence = _code(
        "49755003", "SCT", "Morphologically Abnormal Structure"
    )
    segment.SegmentedPropertyTypeCodeSequence = _code("52988006", "SCT", "Lesion")
    return segment


def _references(study: Study, frames: list[int]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = study.series_uid
    item.ReferencedInstanceSequence = Sequence([_reference(study, i) for i in frames])
    return item


def _reference(study: Study, index: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = _uid(study.hospital, study.name, "series", str(index))
    return item


def _put_frames(dataset: Dataset, study: Study, frames: list[int]) -> None:
    """Write the shared and per-frame functional groups and the dimensions (PS3.3 C.7.6.16-17)."""
    shared = Dataset()
    orientation = Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([orientation])
    measures = Dataset()
    measures.PixelSpacing = [_PIXEL_MM, _PIXEL_MM]
    measures.SliceThickness = _SLICE_MM
    measures.SpacingBetweenSlices = _SLICE_MM
    shared.PixelMeasuresSequence = Sequence([measures])
    identification = Dataset()
    identification.ReferencedSegmentNumber = 1
    shared.SegmentIdentificationSequence = Sequence([identification])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    organization = Dataset()
    organization.DimensionOrganizationUID = _uid(study.hospital, study.name, "dimension")
    dataset.DimensionOrganizationSequence = Sequence([organization])
    pointer = Dataset()
    pointer.DimensionOrganizationUID = organization.DimensionOrganizationUID
    pointer.DimensionIndexPointer = 0x00200032  # Image Position (Patient)
    pointer.FunctionalGroupPointer = 0x00209113  # Plane Position Sequence
    dataset.DimensionIndexSequence = Sequence([pointer])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [_frame_groups(study, place, index) for place, index in enumerate(frames)]
    )


def _frame_groups(study: Study, place: int, index: int) -> Dataset:
    group = Dataset()
    content = Dataset()
    content.DimensionIndexValues = [place + 1]
    group.FrameContentSequence = Sequence([content])
    position = Dataset()
    position.ImagePositionPatient = [-150, -150, _SLICE_MM * index]
    group.PlanePositionSequence = Sequence([position])
    source = _reference(study, index)
    source.PurposeOfReferenceCodeSequence = _code(
        "121322", "DCM", "Source image for image processing operation"
    )
    derivation = Dataset()
    derivation.SourceImageSequence = Sequence([source])
    derivation.DerivationCodeSequence = _code("113076", "DCM", "Segmentation")
    group.DerivationImageSequence = Sequence([derivation])
    return group
