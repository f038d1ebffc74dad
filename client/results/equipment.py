"""Attributes that all results share: patient, series, and the model as equipment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from client.dicom.codec.decode import frames_of
from client.results.codes import RESEARCH, short
from client.results.identity import Identity, Kind
from client.results.inherited import patient_and_study
from client.results.score import ModelName, Score
from client.results.source_images import SourceHeaders
from common.platform.code_hash import RELEASE

MANUFACTURER = "Wardround"
PRODUCT = "Wardround research inference"
#: Series numbers by which a study's list shows results behind its images.
SERIES_NUMBERS = {Kind.REPORT: 9701, Kind.SEGMENTATION: 9702, Kind.CAPTURE: 9703}


@dataclass(frozen=True, kw_only=True)
class ReportedScore:
    """A score with all that its results are written from."""

    score: Score
    source: SourceHeaders
    identity: Identity
    made: datetime  # when the results were first written; the one thing that may differ


def new_instance(finding: ReportedScore, kind: Kind, sop_class: UID) -> Dataset:
    """Return an instance with patient, study, series, equipment and identity."""
    dataset = patient_and_study(finding.source.first)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = finding.identity.instance_uid(kind)
    dataset.SeriesInstanceUID = finding.identity.series_uid(kind)
    dataset.InstanceNumber = 1
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def stamp(dataset: Dataset, finding: ReportedScore, kind: Kind) -> None:
    """Put the same equipment, time and research mark into every kind (PS3.3 C.7.5.1, C.12.1)."""
    model = finding.score.model
    # The weights are what makes one device of this make unlike another.
    stamp_as(dataset, kind, words=model.name, serial=model.weights, made=finding.made)


def stamp_as(dataset: Dataset, kind: Kind, *, words: str, serial: str, made: datetime) -> None:
    """Put equipment, time and research mark into a result: what it is of, and which device."""
    dataset.SeriesNumber = SERIES_NUMBERS[kind]
    dataset.SeriesDescription = short(f"RESEARCH {kind.value}: {words}")
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, PRODUCT
    dataset.SoftwareVersions = RELEASE
    dataset.DeviceSerialNumber = short(serial)
    dataset.ContentQualification = "RESEARCH"
    if kind is not Kind.REPORT:
        dataset.ImageComments = RESEARCH
    dataset.ContentDate = dataset.InstanceCreationDate = made.strftime("%Y%m%d")
    dataset.ContentTime = dataset.InstanceCreationTime = made.strftime("%H%M%S")


def coded(code: Code) -> Dataset:
    """Return an item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def algorithm(model: ModelName) -> Dataset:
    """Return the model as a segment names it (PS3.3 10.16)."""
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [coded(AI)]
    item.AlgorithmName, item.AlgorithmVersion = short(model.name), short(model.weights)
    item.AlgorithmSource = MANUFACTURER
    item.AlgorithmParameters = f"configuration={model.fingerprint}"
    return item


def reference(header: Dataset, frame: int | None = None) -> Dataset:
    """Return a reference to a source, and to one of its frames, from 0 (PS3.3 10.3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if frame is not None and frames_of(header) > 1:
        item.ReferencedFrameNumber = frame + 1
    return item


def decimal(value: float) -> DSfloat:
    """Return a number as a DS holds it, in at most 16 characters (PS3.5 6.2)."""
    return DSfloat(value, auto_format=True)


def every_item(dataset: Dataset) -> Iterator[Dataset]:
    """Yield the dataset and all items in it, however deep."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from every_item(item)


#: PS3.16 CID 7162.
AI = Code("123110", "DCM", "Artificial Intelligence")
