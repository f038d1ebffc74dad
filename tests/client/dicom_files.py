"""DICOM files for tests, written with pydicom: small, legal, and changed at will."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from client.cohort.left_out import LeftOut
from client.cohort.loading import load_cohort
from client.cohort.site_cohort import SiteCohort
from client.site.cache import Cache
from common.config.run_config import RunConfig, parse_config
from common.tasks import task_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Values = NDArray[np.generic]


def uid(*parts: object) -> UID:
    """Return a UID that follows from the parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def image(
    values: Values, patient: str = "P1", study: str = "S1", series: str = "1", number: int = 1
) -> FileDataset:
    """Return a grey or RGB image of (rows, columns[, 3]) or, with 8 bits, several frames."""
    dataset = _base("1.2.840.10008.5.1.4.1.1.7", patient, study, series, number)
    dataset.Modality = "OT"
    color = values.ndim == 3 and values.shape[-1] == 3
    frames = values.shape[0] if values.ndim - color == 3 else 1
    rows, columns = values.shape[-3:-1] if color else values.shape[-2:]
    dataset.Rows, dataset.Columns = rows, columns
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel = 3 if color else 1
    dataset.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        dataset.PlanarConfiguration = 0
    bits = values.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    return dataset


def compressed(values: Values, frame: bytes, syntax: str) -> FileDataset:
    """Return the image with its one frame as the codec wrote it."""
    dataset = image(values)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return dataset


def placed(
    dataset: FileDataset,
    position: Sequence[float],
    cosines: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.5, 0.7),
) -> FileDataset:
    """Return the image with its place in the patient."""
    dataset.Modality = "CT"
    dataset.ImagePositionPatient = [float(p) for p in position]
    dataset.ImageOrientationPatient = [float(c) for c in cosines]
    dataset.PixelSpacing = list(spacing)
    return dataset


def slices(
    volume: Values, patient: str = "P1", gap: float = 2.0, series: str = "1"
) -> list[FileDataset]:
    """Return an axial series, one image a slice, from feet to head."""
    return [
        placed(image(plane, patient, f"study of {patient}", series, number), (0, 0, number * gap))
        for number, plane in enumerate(volume)
    ]


def segmentation(
    masks: Mapping[int, NDArray[np.uint8]], sources: Sequence[FileDataset]
) -> FileDataset:
    """Return a binary SEG: for each segment (slices, rows, columns), the slices that hold any."""
    first = sources[0]
    dataset = _base(SegmentationStorage, str(first.PatientID), "seg", "seg", 1)
    dataset.Modality = "SEG"
    dataset.SegmentationType = "BINARY"
    dataset.SegmentSequence = Items([_item(SegmentNumber=n) for n in masks])
    dataset.Rows, dataset.Columns = first.Rows, first.Columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    frames = [(n, i) for n, mask in masks.items() for i in range(len(mask)) if mask[i].any()]
    shared = Dataset()
    if "ImageOrientationPatient" in first:
        shared.PlaneOrientationSequence = Items(
            [_item(ImageOrientationPatient=first.ImageOrientationPatient)]
        )
        shared.PixelMeasuresSequence = Items([_item(PixelSpacing=first.PixelSpacing)])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items(
        [_frame_groups(number, sources[index]) for number, index in frames]
    )
    dataset.NumberOfFrames = len(frames)
    bits = np.concatenate([(masks[n][i] > 0).reshape(-1) for n, i in frames])
    packed = np.packbits(bits, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    return dataset


def _frame_groups(number: int, source: FileDataset) -> Dataset:
    groups = _item(
        SegmentIdentificationSequence=Items([_item(ReferencedSegmentNumber=number)]),
        DerivationImageSequence=Items(
            [
                _item(
                    SourceImageSequence=Items(
                        [_item(ReferencedSOPInstanceUID=source.SOPInstanceUID)]
                    )
                )
            ]
        ),
    )
    if "ImagePositionPatient" in source:
        groups.PlanePositionSequence = Items(
            [_item(ImagePositionPatient=source.ImagePositionPatient)]
        )
    return groups


def _item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _base(sop_class: str, patient: str, study: str, series: str, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = uid(patient, study, series, number)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.AccessionNumber = patient, f"A{study}"[:16]
    dataset.StudyInstanceUID = uid(patient, study)
    dataset.SeriesInstanceUID = uid(patient, study, series)
    return dataset


def save(path: Path, dataset: FileDataset) -> Path:
    """Write a file with its preamble."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def noise(*shape: int, seed: int = 0, dtype: str = "uint16", top: int = 4000) -> Values:
    """Return random pixel values below `top`."""
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def write_labels(site: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write labels.csv with the columns of the first row."""
    site.mkdir(parents=True, exist_ok=True)
    with (site / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


CONFIG = """
name: test
task: {task}
cohort: {cohort}
model: {{network: {network}}}
training: {{rounds: 1}}
privacy: none
"""


def config_of(
    task: str = "{kind: diagnosis, target: ill}",
    cohort: str = "{images: {size: [16, 16]}}",
    network: str = "small_cnn",
) -> RunConfig:
    """Return a run's configuration."""
    return parse_config(CONFIG.format(task=task, cohort=cohort, network=network))


def load(
    site: Path,
    config: RunConfig,
    cache: Path,
    left_out: LeftOut | None = None,
    labels: Path | None = None,
) -> SiteCohort:
    """Load a cohort as a run does."""
    refused = left_out or LeftOut()
    return load_cohort(site, config, task_of(config.task), Cache(cache), labels, refused)
