"""CT series on disk with the headers that scanners write, for the benchmarks that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

Encode = Callable[[NDArray[np.uint16]], bytes]


def write_series(
    folder: Path,
    volume: NDArray[np.uint16],
    series: int,
    encode: Encode | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write (slices, rows, columns) as one file a slice; all series are of one patient each."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _header(series, syntax)
    files = []
    for number, plane in enumerate(volume):
        dataset.SOPInstanceUID = _uid(series, "image", number)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [-180.0, -180.0, 1.5 * number]
        dataset.SliceLocation = 1.5 * number
        dataset.Rows, dataset.Columns = plane.shape
        dataset.PixelData = plane.tobytes() if encode is None else encapsulate([encode(plane)])
        dataset["PixelData"].VR = "OW" if encode is None else "OB"
        files.append(folder / f"{number:04d}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return files


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return 12-bit values that look like tissue: smooth, with noise on top."""
    rng = np.random.default_rng(seed)
    rows = np.sin(np.linspace(0, 3, shape[-2]))[:, None]
    columns = np.cos(np.linspace(0, 4, shape[-1]))
    smooth = 1500 + 900 * rows * columns
    return (smooth + rng.normal(0, 20, shape)).clip(0, 4095).astype(np.uint16)


def _uid(*parts: object) -> UID:
    return generate_uid(entropy_srcs=[str(part) for part in ("benchmark", *parts)])


def _header(series: int, syntax: str) -> FileDataset:
    """Return what every slice of a series says: about 120 elements, 30 of them in sequences."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = UID(syntax), CTImageStorage
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for part in (_study_elements(series), _scan_elements(), _private_elements()):
        dataset.update(part)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    return dataset


def _study_elements(series: int) -> Dataset:
    found = Dataset()
    found.SpecificCharacterSet = "ISO_IR 100"
    found.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]
    found.SOPClassUID = CTImageStorage
    found.StudyDate = found.SeriesDate = found.AcquisitionDate = found.ContentDate = "20240315"
    found.StudyTime = found.SeriesTime = found.AcquisitionTime = "101530.123"
    found.ContentTime = "101531.456"
    found.AccessionNumber, found.Modality = f"A{series:08d}", "CT"
    found.Manufacturer, found.ManufacturerModelName = "SIEMENS", "SOMATOM Definition AS+"
    found.InstitutionName = "Universitätsklinikum"
    found.InstitutionAddress = "Straße 1"
    found.ReferringPhysicianName = "Doe^Jane"
    found.StationName, found.InstitutionalDepartmentName = "CT1", "Radiologie"
    found.StudyDescription, found.SeriesDescription = "CT Abdomen nativ", "Abd 1.5 B30f"
    found.PhysiciansOfRecord = found.PerformingPhysicianName = "Doe^John"
    found.OperatorsName = "MTRA"
    found.PatientName, found.PatientID = f"Invented^{series}", f"P{series:06d}"
    found.PatientBirthDate, found.PatientSex, found.PatientAge = "19600101", "F", "064Y"
    found.PatientSize, found.PatientWeight = "1.70", "70"
    found.StudyInstanceUID = _uid(series, "study")
    found.SeriesInstanceUID = _uid(series, "series")
    found.FrameOfReferenceUID = _uid(series, "frame")
    found.StudyID, found.SeriesNumber, found.AcquisitionNumber = "1", 3, 2
    found.ReferencedStudySequence = Items([_referenced(series, "study")])
    found.ReferencedImageSequence = Items([_referenced(series, f"image {n}") for n in range(3)])
    found.SourceImageSequence = Items([_referenced(series, "source")])
    for name in ("ReferencedStudySequence", "SourceImageSequence"):
        found[name].is_undefined_length = True
    found.RequestAttributesSequence = Items([_request()])
    found.ProcedureCodeSequence = Items([_code("CTABD", "CT Abdomen")])
    return found


def _scan_elements() -> Dataset:
    found = Dataset()
    found.BodyPartExamined, found.PatientPosition, found.ProtocolName = "ABDOMEN", "HFS", "Abdomen"
    found.SliceThickness, found.KVP, found.DataCollectionDiameter = "1.5", "120", "500"
    found.SoftwareVersions, found.DeviceSerialNumber = "syngo CT 2012B", "66666"
    found.ReconstructionDiameter, found.DistanceSourceToDetector = "360", "1085.6"
    found.DistanceSourceToPatient, found.GantryDetectorTilt = "595", "0"
    found.TableHeight, found.RotationDirection, found.ExposureTime = "155", "CW", 500
    found.XRayTubeCurrent, found.Exposure, found.FilterType = 210, 105, "FLAT"
    found.GeneratorPower, found.FocalSpots = 35, "1.2"
    found.DateOfLastCalibration, found.TimeOfLastCalibration = "20240315", "070000.000"
    found.ConvolutionKernel, found.ExposureModulationType = "B30f", "XYZ_EC"
    found.EstimatedDoseSaving, found.CTDIvol, found.SingleCollimationWidth = 0.1, 7.1, 0.6
    found.TotalCollimationWidth, found.TableSpeed, found.SpiralPitchFactor = 38.4, 46.0, 0.6
    found.TableFeedPerRotation = 23.0
    found.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    found.PositionReferenceIndicator, found.ImageComments = "", "Abd"
    found.PixelSpacing = ["0.703125", "0.703125"]
    found.SmallestImagePixelValue, found.LargestImagePixelValue = 0, 4095
    found.WindowCenter, found.WindowWidth = ["40", "300"], ["400", "1500"]
    found.WindowCenterWidthExplanation = ["WINDOW1", "WINDOW2"]
    found.PerformedProcedureStepStartDate, found.PerformedProcedureStepID = "20240315", "1"
    found.PerformedProcedureStepStartTime = "101500"
    found.PerformedProcedureStepDescription = "CT Abdomen"
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        found[name].VR = "US"
    return found


def _private_elements() -> Dataset:
    """Return what manufacturers add: a few texts, a binary block of 2 KB and a sequence."""
    found = Dataset()
    block = found.private_block(0x0019, "SIEMENS CT VA0  COAD", create=True)
    for element in range(0x90, 0xA8):
        block.add_new(element, "DS", "1.25")
    block = found.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(range(256)) * 8)
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    return found


def _referenced(*parts: object) -> Dataset:
    found = Dataset()
    found.ReferencedSOPClassUID, found.ReferencedSOPInstanceUID = CTImageStorage, _uid(*parts)
    return found


def _code(value: str, meaning: str) -> Dataset:
    found = Dataset()
    found.CodeValue, found.CodingSchemeDesignator, found.CodeMeaning = value, "LOCAL", meaning
    return found


def _request() -> Dataset:
    found = Dataset()
    found.RequestedProcedureDescription = found.ScheduledProcedureStepDescription = "CT Abdomen"
    found.ScheduledProcedureStepID = found.RequestedProcedureID = "SPS1"
    found.ScheduledProtocolCodeSequence = Items([_code("CTABD", "CT Abdomen")])
    return found
