"""What reports of scores and of measurements have in common, as DICOM SR (PS3.16, TID 1500)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from client.radiomics.feature import Feature
from client.radiomics.measured import MeasuredStructure
from client.results import codes
from client.results.codes import own
from client.results.equipment import MANUFACTURER, PRODUCT, SERIES_NUMBERS, coded, every_item
from client.results.identity import Identity, Kind
from client.results.inherited import patient_and_study
from client.results.source_images import SourceHeaders
from common.platform.code_hash import RELEASE

if TYPE_CHECKING:
    from highdicom.sr import (
        ImageContentItem,
        Measurement,
        MeasurementReport,
        ObservationContext,
        ReferencedSegment,
    )

_LIBRARY = "111028"  # Image Library, DCM
PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
TITLE = Code("126000", "DCM", "Imaging Measurement Report")


def document(
    content: MeasurementReport,
    source: SourceHeaders,
    identity: Identity,
    others: Sequence[Dataset] = (),
) -> Dataset:
    """Return an SR of some content; `others` are what it refers to beside its sources."""
    from highdicom.sr import Comprehensive3DSR

    evidence = [evidence_of(source, header) for header in source.all_headers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of patients as hospitals write them
        dataset: Dataset = Comprehensive3DSR(
            evidence=[*evidence, *others],
            content=content[0],
            series_instance_uid=identity.series_uid(Kind.REPORT),
            series_number=SERIES_NUMBERS[Kind.REPORT],
            sop_instance_uid=identity.instance_uid(Kind.REPORT),
            instance_number=1,
            is_complete=True,
            specific_character_set=evidence[0].SpecificCharacterSet,
        )
    _settle(dataset, source)
    return dataset


def evidence_of(source: SourceHeaders, header: Dataset) -> Dataset:
    """Return what highdicom is to know of a source: it refuses much that hospitals send.

    Every image is a secondary capture to it; _settle puts the true class back.
    """
    found = patient_and_study(source.first)
    found.SeriesInstanceUID = header.SeriesInstanceUID
    found.SOPInstanceUID, found.SOPClassUID = header.SOPInstanceUID, SecondaryCaptureImageStorage
    found.Rows, found.Columns = header.Rows, header.Columns
    if header.get("FrameOfReferenceUID"):
        found.FrameOfReferenceUID = header.FrameOfReferenceUID
    found.Modality = "OT"
    return found


def _settle(dataset: Dataset, source: SourceHeaders) -> None:
    """Name the sources by their own class, and take out what the library leaves to chance."""
    kind = codes.MODALITIES.get(str(source.first.get("Modality")))
    classes = {str(header.SOPInstanceUID): header.SOPClassUID for header in source.all_headers}
    for item in every_item(dataset):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
        referenced = item.get("ReferencedSOPInstanceUID")
        if referenced in classes:
            item.ReferencedSOPClassUID = classes[referenced]
        if kind is not None and _is_modality(item):
            item.ConceptCodeSequence = [coded(kind)]
        if "ReferencedFrameNumber" in item and "ReferencedSegmentNumber" in item:
            # One or the other (PS3.3 10.3.1.1); a frame of a binary SEG is of one segment.
            del item.ReferencedSegmentNumber


def _is_modality(item: Dataset) -> bool:
    names = item.get("ConceptNameCodeSequence")
    return bool(names) and names[0].CodeValue == "121139" and "ConceptCodeSequence" in item


def list_sources(content: MeasurementReport, source: SourceHeaders) -> None:
    """Put all sources into the image library, what is said of the first above them all.

    They are slices of one series; 300 descriptions alike took highdicom 6 s (TID 1600, row 3).
    What else was read is a group of its own, which says nothing of size or kind.
    """
    from highdicom.sr import ContainerContentItem, ContentSequence

    (library,) = [i for i in content[0].ContentSequence if i.name.value == _LIBRARY]
    group = library.ContentSequence[0]
    (first,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
    known = {item.name.value for item in group.ContentSequence}
    shared = [item for item in first.ContentSequence if item.name.value not in known]
    others = [item for item in group.ContentSequence if item.ValueType != "IMAGE"]
    group.ContentSequence = ContentSequence([*others, *shared, *_images(source.headers)])
    if source.beside:
        more = ContainerContentItem(name=group.name, relationship_type="CONTAINS")
        more.ContentSequence = ContentSequence(_images(source.beside))
        library.ContentSequence.append(more)


def _images(headers: Sequence[Dataset]) -> list[ImageContentItem]:
    from highdicom.sr import CodedConcept, ImageContentItem

    return [
        ImageContentItem(
            name=CodedConcept("260753009", "SCT", "Source"),
            referenced_sop_class_uid=SecondaryCaptureImageStorage,
            referenced_sop_instance_uid=header.SOPInstanceUID,
            relationship_type="CONTAINS",
        )
        for header in headers
    ]


def add_sentences(content: MeasurementReport, sentences: Iterable[str]) -> None:
    """Say sentences at the end of a report, each a comment."""
    from highdicom.sr import ContainerContentItem, ContentSequence, TextContentItem

    said = ContainerContentItem(name=codes.EVALUATIONS, relationship_type="CONTAINS")
    said.ContentSequence = ContentSequence(
        [
            TextContentItem(name=codes.COMMENT, value=words, relationship_type="CONTAINS")
            for words in sentences
        ]
    )
    content[0].ContentSequence.append(said)


def device_observer(*, uid: str, model: str, serial: str) -> ObservationContext:
    """Return the device that observed (TID 1004)."""
    from highdicom.sr import (
        CodedConcept,
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )

    device = DeviceObserverIdentifyingAttributes(
        uid=uid,
        name=f"{PRODUCT} {RELEASE}",
        manufacturer_name=MANUFACTURER,
        model_name=model,
        serial_number=serial,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=device,
        )
    )


def measurement(
    name: Code,
    value: float,
    derivation: Code | None = None,
    unit: Code = codes.RATIO,
    method: Code | None = None,
) -> Measurement:
    """Return a number with its name and unit."""
    from highdicom.sr import Measurement

    return Measurement(
        name=name, value=float(value), unit=unit, derivation=derivation, method=method
    )


def largest_area(mm2: float) -> Measurement:
    """Return the area of a volume's structure on the slice that shows most of it.

    A viewer that shows a line calls the area in its group that of the line.
    """
    return measurement(codes.AREA, mm2, codes.MAXIMUM, codes.MM2)


def referenced(segmentation: Dataset, number: int, headers: Sequence[Dataset]) -> ReferencedSegment:
    """Return a segment with what it was drawn on: a series, or images of several (TID 1411)."""
    from highdicom import sr

    series = {str(header.SeriesInstanceUID) for header in headers}
    images = [sr.SourceImageForSegmentation(h.SOPClassUID, h.SOPInstanceUID) for h in headers]
    alone = sr.SourceSeriesForSegmentation(series.pop()) if len(series) == 1 else None
    # Not from_segmentation: it fails where highdicom itself wrote a single segment.
    return sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        number,
        source_images=None if alone is not None else images,
        source_series=alone,
    )


def feature_measurements(measured: MeasuredStructure) -> Iterator[Measurement]:
    """Yield what was measured of a structure; its volume by voxels stands before, as Volume."""
    for feature, value in measured.features.items():
        if feature is not Feature.VOLUME:
            unit = codes.unit_of(feature.unit_in(measured.unit))
            yield measurement(_name(feature), value, unit=unit)


def _name(feature: Feature) -> Code:
    named = feature.value
    if not named.code:
        return own(named.meaning)
    return Code(named.code, named.scheme, named.meaning)
