"""Valid DICOM of invented patients: radiographs and CT series.

What all files of a machine share is encoded once; a file is then a handful of new elements
and a join of bytes, four times as quick as building every dataset anew.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

TransferSyntax = Literal["explicit", "implicit", "rle", "jpeg-ls", "jpeg2000"]
_SYNTAXES: dict[TransferSyntax, UID] = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg2000": JPEG2000Lossless,
}
Stored = NDArray[np.uint16]
#: Tag -> the element's bytes, header and value.
Encoded = Mapping[int, bytes]

#: Grey levels of X-ray and unsigned CT: 12 bits.
LEVELS = 4095
#: Lowest value that unsigned CT can store, in Hounsfield units.
CT_LOW = -1024
#: The picture covers this much of the patient.
_FIELD_MM = 360.0
_FIRST_DAY = date(2020, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine stamps on all of its files."""

    hospital: str
    manufacturer: str
    transfer_syntax: TransferSyntax
    inverted: bool  # X-ray: MONOCHROME1, where large values are dark
    signed: bool  # CT: signed values without an intercept
    slice_mm: float  # CT: distance of slices

    @property
    def syntax(self) -> UID:
        """Transfer Syntax UID."""
        return _SYNTAXES[self.transfer_syntax]


@dataclass(frozen=True, kw_only=True)
class InventedStudy:
    """What identifies a study; every identifier follows from patient and number."""

    patient: str
    number: int
    age: int
    sex: Literal["f", "m"]

    @property
    def name(self) -> str:
        """Name for files and folders."""
        return f"{self.patient}-{self.number}"

    @property
    def study_uid(self) -> UID:
        """Study Instance UID."""
        return self.uid("study")

    @property
    def series_uid(self) -> UID:
        """Series Instance UID of the images."""
        return self.uid("series")

    @property
    def accession(self) -> str:
        """Accession Number, at most 16 characters (VR SH)."""
        return hashlib.sha256(f"accession/{self.name}".encode()).hexdigest()[:12].upper()

    @property
    def day(self) -> str:
        """Study Date: a patient's studies follow each other."""
        start = int.from_bytes(hashlib.sha256(self.patient.encode()).digest()[:2], "big") % 365
        return (_FIRST_DAY + timedelta(days=start + 45 * self.number)).strftime("%Y%m%d")

    def uid(self, *parts: str) -> UID:
        """Return a UID of this study, of the UUID form (PS3.5 B.2), from a hash of the parts."""
        digest = hashlib.sha256("/".join((self.name, *parts)).encode()).digest()
        return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")


def pixel_mm(rows: int) -> float:
    """Return the distance of pixels of a picture with so many rows."""
    return round(_FIELD_MM / rows, 4)


def write_xray(
    path: Path, picture: NDArray[np.float32], study: InventedStudy, machine: Machine
) -> None:
    """Write one CR image; picture is (rows, columns) in 0 to 1, bright is dense."""
    stored = np.round(picture * LEVELS).astype(np.uint16)
    own = study_elements(study, "series")
    own.SOPInstanceUID = study.uid("image")
    put_pixels(own, LEVELS - stored if machine.inverted else stored, machine.syntax)
    shared = _xray_elements(machine, *stored.shape)
    write_file(path, {**shared, **encode(own, machine.syntax)}, machine.syntax)


def write_ct(
    folder: Path, hounsfield: NDArray[np.float32], study: InventedStudy, machine: Machine
) -> None:
    """Write a CT series, one file a slice; hounsfield is (slices, rows, columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    syntax = machine.syntax
    own = study_elements(study, "series")
    own.FrameOfReferenceUID = study.uid("frame")
    shared = {**_ct_elements(machine, *hounsfield.shape[1:]), **encode(own, syntax)}
    for index, picture in enumerate(stored_ct(hounsfield, signed=machine.signed)):
        own = Dataset()
        own.SOPInstanceUID = study.uid("image", str(index))
        own.InstanceNumber = index + 1
        own.ImagePositionPatient = position(index, machine)
        own.SliceLocation = machine.slice_mm * index
        put_pixels(own, picture, syntax)
        write_file(folder / f"{index + 1:04d}.dcm", {**shared, **encode(own, syntax)}, syntax)


def stored_ct(hounsfield: NDArray[np.float32], *, signed: bool) -> Stored:
    """Return Hounsfield units as stored: 16 bits in two's complement, or 12 bits from CT_LOW."""
    if signed:
        return np.clip(np.round(hounsfield), -2000, 4000).astype(np.int16).view(np.uint16)
    return np.clip(np.round(hounsfield) - CT_LOW, 0, LEVELS).astype(np.uint16)


def position(index: int, machine: Machine) -> list[float]:
    """Return the center of a slice's first pixel in the patient (LPS, mm)."""
    return [-_FIELD_MM / 2, -_FIELD_MM / 2, machine.slice_mm * index]


def study_elements(study: InventedStudy, series: str) -> Dataset:
    """Return the patient and study modules."""
    dataset = Dataset()
    dataset.StudyDate = dataset.ContentDate = study.day
    dataset.StudyTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = study.accession
    dataset.PatientName = f"Invented^{study.patient}"
    dataset.PatientID = study.patient
    dataset.PatientSex = study.sex.upper()
    dataset.PatientAge = f"{study.age:03d}Y"
    dataset.StudyInstanceUID = study.study_uid
    dataset.SeriesInstanceUID = study.uid(series)
    dataset.StudyID = str(study.number + 1)
    return dataset


def machine_elements(machine: Machine, sop_class: UID, modality: str) -> Dataset:
    """Return what every object of this machine says: class, equipment and empty type 2 elements."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.Modality = modality
    dataset.Manufacturer = machine.manufacturer
    dataset.InstitutionName = f"Synthetic hospital {machine.hospital}"
    dataset.ManufacturerModelName = "Phantom"
    dataset.DeviceSerialNumber = "1"
    dataset.SoftwareVersions = "1"
    dataset.ReferringPhysicianName = ""
    dataset.PatientBirthDate = ""
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    return dataset


@lru_cache
def _xray_elements(machine: Machine, rows: int, columns: int) -> Encoded:
    dataset = machine_elements(machine, ComputedRadiographyImageStorage, "CR")
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.PhotometricInterpretation = "MONOCHROME1" if machine.inverted else "MONOCHROME2"
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [pixel_mm(rows), pixel_mm(rows)]
    _put_matrix(dataset, rows, columns, bits=12)
    return encode(dataset, machine.syntax)


@lru_cache
def _ct_elements(machine: Machine, rows: int, columns: int) -> Encoded:
    dataset = machine_elements(machine, CTImageStorage, "CT")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "ABDOMEN"
    dataset.PatientPosition = "HFS"
    dataset.PositionReferenceIndicator = ""
    dataset.KVP = "120"
    dataset.AcquisitionNumber = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleIntercept = 0 if machine.signed else CT_LOW
    dataset.RescaleSlope = 1
    dataset.RescaleType = "HU"
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [pixel_mm(rows), pixel_mm(rows)]
    dataset.SliceThickness = machine.slice_mm
    _put_matrix(dataset, rows, columns, bits=16 if machine.signed else 12)
    dataset.PixelRepresentation = int(machine.signed)
    return encode(dataset, machine.syntax)


def _put_matrix(dataset: Dataset, rows: int, columns: int, *, bits: int) -> None:
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0


def put_pixels(dataset: Dataset, stored: Stored, syntax: UID) -> None:
    """Put 16-bit values into the dataset as the transfer syntax wants them."""
    if syntax.is_compressed:
        dataset.PixelData = encapsulate([_compress(np.ascontiguousarray(stored), syntax)])
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OB" if syntax.is_compressed else "OW"


def _compress(stored: Stored, syntax: UID) -> bytes:
    if syntax == RLELossless:
        from rle.rle import encode_frame

        return bytes(encode_frame(stored.astype("<u2").tobytes(), *stored.shape, 1, 16, "<"))
    import imagecodecs

    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(stored))
    return bytes(imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True))


def encode(dataset: Dataset, syntax: UID) -> Encoded:
    """Return each element's bytes in a little endian transfer syntax."""
    encoded: dict[int, bytes] = {}
    for element in dataset:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, syntax.is_implicit_VR
        write_data_element(buffer, element)
        encoded[int(element.tag)] = buffer.getvalue()
    return encoded


def write_file(path: Path, elements: Encoded, syntax: UID) -> None:
    """Write a DICOM file: preamble, header (PS3.10 7.1), elements in the order of their tags."""
    header = {**_header(syntax), **_instance(elements)}
    body = b"".join(header[tag] for tag in sorted(header))
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body))
    data = b"".join(elements[tag] for tag in sorted(elements))
    path.write_bytes(bytes(128) + b"DICM" + length + body + data)


@lru_cache
def _header(syntax: UID) -> Encoded:
    dataset = Dataset()
    dataset.FileMetaInformationVersion = b"\0\1"
    dataset.TransferSyntaxUID = syntax
    dataset.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return encode(dataset, ExplicitVRLittleEndian)


def _instance(elements: Encoded) -> Encoded:
    """Return the header's class and instance, from SOPClassUID and SOPInstanceUID."""
    # Tag, VR and a length of 2 bytes, or tag and a length of 4: the value starts at byte 8.
    return {
        0x00020002: _explicit_uid(0x0002, elements[0x00080016][8:]),
        0x00020003: _explicit_uid(0x0003, elements[0x00080018][8:]),
    }


def _explicit_uid(element: int, value: bytes) -> bytes:
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value
