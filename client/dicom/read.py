"""DICOM files to pixel values, with every step that changes a value explicit.

Stored values are kept as they are and travel with the line that makes them quantities
(PS3.3 C.11.1: slope x stored + intercept), so a cache can hold what the scanner wrote.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MediaStorageDirectoryStorage,
    SegmentationStorage,
)

from client.dicom.reasons import Reason

#: Samples in one object beyond which it is refused before memory is taken: 2 GiB of 16 bits.
LARGEST = 1 << 30
#: Decoded by imagecodecs; the rest by pydicom's own decoders.
_IMAGECODECS = frozenset({
    JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless,
})  # fmt: skip


class UnusableFile(Exception):
    """A file that is left out; caught where files are listed."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """An object's frames as stored, and how stored values become quantities."""

    stored: NDArray[np.integer] | NDArray[np.floating]  # (frames, rows, columns[, 3])
    slope: NDArray[np.float64]  # (frames,)
    intercept: NDArray[np.float64]  # (frames,)
    inverted: bool  # MONOCHROME1: large stored values are dark

    def values(self, frame: int) -> NDArray[np.float32]:
        """Return one frame as quantities, (rows, columns[, 3]); high is bright.

        MONOCHROME1 is turned within its range: v becomes min + max - v of the frame.
        """
        value = self.stored[frame].astype(np.float32)
        value = value * np.float32(self.slope[frame]) + np.float32(self.intercept[frame])
        if self.inverted:
            value = value.max() + value.min() - value
        return np.asarray(value, np.float32)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a cohort needs to know of an object besides its pixels."""

    patient: str
    study: str
    series: str
    instance: str
    accession: str
    modality: str
    spacing: tuple[float, float] | None  # row and column distance in mm
    positions: tuple[tuple[float, float, float], ...]  # of each frame, mm; empty without geometry
    orientation: tuple[float, ...]  # six cosines; empty without geometry


def read_dataset(path: Path) -> Dataset:
    """Parse one file; UnusableFile says why not."""
    if path.stat().st_size == 0:
        raise UnusableFile(Reason.EMPTY_FILE)
    try:
        dataset = dcmread(path)
    except InvalidDicomError:
        return _without_preamble(path)
    except (OSError, ValueError, AttributeError, KeyError, NotImplementedError, TypeError,
            struct.error, EOFError) as error:  # fmt: skip
        raise UnusableFile(Reason.NOT_DICOM, type(error).__name__) from error
    return dataset


def _without_preamble(path: Path) -> Dataset:
    """Parse a file that lacks the preamble of PS3.10 7.1, if it is DICOM all the same."""
    try:
        dataset = dcmread(path, force=True)
        known = "SOPClassUID" in dataset and "PixelData" in dataset
    except Exception as error:
        # Whatever a random file makes the parser raise, the file is not DICOM.
        raise UnusableFile(Reason.NOT_DICOM) from error
    if not known:
        raise UnusableFile(Reason.NOT_DICOM)
    return dataset


def check_image(dataset: Dataset) -> None:
    """Raise UnusableFile for what is no image or too large to be one."""
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    if sop_class == MediaStorageDirectoryStorage or "DirectoryRecordSequence" in dataset:
        raise UnusableFile(Reason.DICOMDIR)
    if sop_class == SegmentationStorage:
        raise UnusableFile(Reason.SEGMENTATION)
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()):
        raise UnusableFile(Reason.NO_PIXELS)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        raise UnusableFile(Reason.MISSING_HEADER, "TransferSyntaxUID")
    for name in ("Rows", "Columns", "BitsAllocated", "SamplesPerPixel"):
        if not dataset.get(name):
            raise UnusableFile(Reason.MISSING_HEADER, name)
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
    if samples * int(dataset.get("NumberOfFrames") or 1) > LARGEST:
        raise UnusableFile(Reason.TOO_LARGE, f"{dataset.Rows} x {dataset.Columns}")


def read_pixels(dataset: Dataset) -> Pixels:
    """Decode all frames; UnusableFile says why not."""
    try:
        check_image(dataset)
        stored = _decode(dataset)
        return _as_quantities(dataset, stored)
    except UnusableFile:
        raise
    except (NotImplementedError, RuntimeError, AttributeError) as error:
        raise UnusableFile(_decode_reason(str(error)), str(error)[:120]) from error
    except Exception as error:
        # Decoders of several libraries raise their own kinds on broken data.
        raise UnusableFile(_decode_reason(str(error)), type(error).__name__) from error


def _decode_reason(message: str) -> Reason:
    lowered = message.lower()
    if "transfer syntax" in lowered or "missing dependencies" in lowered:
        return Reason.UNSUPPORTED_SYNTAX
    short = ("less than", "fewer", "not enough", "truncated", "unexpected end", "actual length")
    return Reason.TRUNCATED_PIXELS if any(s in lowered for s in short) else Reason.DECODE_ERROR


def _decode(dataset: Dataset) -> NDArray[np.integer]:
    """Return (frames, rows, columns[, 3]) in RGB or grey."""
    if dataset.file_meta.TransferSyntaxUID in _IMAGECODECS:
        found = _decode_frames(dataset)
    else:
        found = pixel_array(dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    color = int(dataset.SamplesPerPixel) > 1
    shape = (frames, int(dataset.Rows), int(dataset.Columns), *((3,) if color else ()))
    if found.size != np.prod(shape):
        raise UnusableFile(Reason.TRUNCATED_PIXELS, f"{found.shape} for {shape}")
    found = found.reshape(shape)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        found = np.stack([apply_color_lut(frame, dataset) for frame in found])
    return np.ascontiguousarray(found)


def _decode_frames(dataset: Dataset) -> NDArray[np.integer]:
    import imagecodecs

    count = int(dataset.get("NumberOfFrames") or 1)
    syntax = dataset.file_meta.TransferSyntaxUID
    near = syntax in {JPEGLSLossless, JPEGLSNearLossless}
    frames = []
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        if near:
            frames.append(imagecodecs.jpegls_decode(frame))
        elif syntax == JPEGExtended12Bit:
            frames.append(imagecodecs.jpeg_decode(frame))
        else:
            frames.append(imagecodecs.ljpeg_decode(frame))
    found = np.stack(frames)
    # Signed values are stored as they are, in so many bits (PS3.5 8.1.1).
    if int(dataset.PixelRepresentation) == 1:
        shift = int(dataset.BitsAllocated) - int(dataset.BitsStored)
        wide = int(dataset.BitsAllocated) == 16
        raised = np.left_shift(found.astype(np.uint16 if wide else np.uint8), shift)
        found = np.right_shift(raised.view(np.int16 if wide else np.int8), shift)
    return found


def _as_quantities(dataset: Dataset, stored: NDArray[np.integer]) -> Pixels:
    frames = len(stored)
    if dataset.get("ModalityLUTSequence"):
        stored = np.asarray(apply_modality_lut(stored, dataset))
        slope, intercept = np.ones(frames), np.zeros(frames)
    else:
        slope, intercept = _rescale(dataset, frames)
    return Pixels(
        stored=stored, slope=slope, intercept=intercept,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
    )  # fmt: skip


def _groups(dataset: Dataset, frame: int) -> list[Dataset]:
    """Return the functional groups of a frame, its own before the shared (PS3.3 C.7.6.16)."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    return [*own[frame : frame + 1], *shared[:1]]


def _group_item(dataset: Dataset, frame: int, sequence: str) -> Dataset | None:
    for group in _groups(dataset, frame):
        if group.get(sequence):
            return group[sequence].value[0]  # type: ignore[no-any-return]  # pydicom: a Dataset
    return None


def _rescale(dataset: Dataset, frames: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and intercept of each frame."""
    own = [_group_item(dataset, f, "PixelValueTransformationSequence") for f in range(frames)]
    lines = [dataset if item is None else item for item in own]
    slope = [float(line.get("RescaleSlope") or 1) for line in lines]
    intercept = [float(line.get("RescaleIntercept") or 0) for line in lines]
    return np.array(slope), np.array(intercept)


def read_header(dataset: Dataset) -> Header:
    """Return what identifies and places an object."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    positions: list[tuple[float, float, float]] = []
    orientation: tuple[float, ...] = ()
    for frame in range(frames):
        place = _group_item(dataset, frame, "PlanePositionSequence") or dataset
        turn = _group_item(dataset, frame, "PlaneOrientationSequence") or dataset
        where, cosines = place.get("ImagePositionPatient"), turn.get("ImageOrientationPatient")
        if not where or not cosines or len(where) != 3 or len(cosines) != 6:
            positions = []
            break
        positions.append((float(where[0]), float(where[1]), float(where[2])))
        orientation = tuple(float(c) for c in cosines)
    measures = _group_item(dataset, 0, "PixelMeasuresSequence") or dataset
    spacing = measures.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    return Header(
        patient=_text(dataset, "PatientID"), study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"), instance=_text(dataset, "SOPInstanceUID"),
        accession=_text(dataset, "AccessionNumber"), modality=_text(dataset, "Modality"),
        spacing=(float(spacing[0]), float(spacing[1])) if spacing else None,
        positions=tuple(positions), orientation=orientation if positions else (),
    )  # fmt: skip


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip()
