"""DICOM SR of a score: Comprehensive 3D SR with the measurement report TID 1500 (PS3.16)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from client.dicom.codec.decode import frames_of
from client.results import codes
from client.results.codes import Own, own, short
from client.results.equipment import (
    AI,
    MANUFACTURER,
    PRODUCT,
    SERIES_NUMBERS,
    ReportedScore,
    coded,
    every_item,
    stamp,
)
from client.results.identity import Kind, uid_of
from client.results.inherited import patient_and_study
from client.results.regions import Region, regions
from client.results.score import ModelName, Quantity, Score
from client.results.score_sentences import sentences
from client.results.source_images import SourceHeaders
from common.platform.code_hash import RELEASE

if TYPE_CHECKING:
    from highdicom.sr import (
        Measurement,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        ReferencedSegment,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    Group = (
        MeasurementsAndQualitativeEvaluations
        | PlanarROIMeasurementsAndQualitativeEvaluations
        | VolumetricROIMeasurementsAndQualitativeEvaluations
    )

_LIBRARY = "111028"  # Image Library, DCM
_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")


def report(finding: ReportedScore, segmentation: Dataset | None) -> Dataset:
    """Return the SR; preliminary and unverified, as no person has looked at it.

    segmentation: the SEG of the same score, whose segments the volumes are of.
    """
    from highdicom.sr import Comprehensive3DSR

    evidence = [_evidence(finding, header) for header in finding.source.headers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of patients as hospitals write them
        dataset: Dataset = Comprehensive3DSR(
            evidence=[*evidence, *([] if segmentation is None else [segmentation])],
            content=_content(finding, segmentation)[0],
            series_instance_uid=finding.identity.series_uid(Kind.REPORT),
            series_number=SERIES_NUMBERS[Kind.REPORT],
            sop_instance_uid=finding.identity.instance_uid(Kind.REPORT),
            instance_number=1,
            is_complete=True,
            specific_character_set=evidence[0].SpecificCharacterSet,
        )
    stamp(dataset, finding, Kind.REPORT)
    _settle(dataset, finding.source)
    return dataset


def _evidence(finding: ReportedScore, header: Dataset) -> Dataset:
    """Return what highdicom is to know of a source: it refuses much that hospitals send.

    Every image is a secondary capture to it; _settle puts the true class back.
    """
    found = patient_and_study(finding.source.first)
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
    classes = {str(header.SOPInstanceUID): header.SOPClassUID for header in source.headers}
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


def _content(finding: ReportedScore, segmentation: Dataset | None) -> MeasurementReport:
    from highdicom.sr import (
        ContainerContentItem,
        ContentSequence,
        MeasurementReport,
        TextContentItem,
    )

    found = MeasurementReport(
        observation_context=_observer(finding.score.model),
        procedure_reported=_PROCEDURE,
        imaging_measurements=[_answer(finding), *_outlined(finding, segmentation)],
        title=Code("126000", "DCM", "Imaging Measurement Report"),
        referenced_images=[_evidence(finding, finding.source.first)],
    )
    _list_sources(found, finding.source)
    said = ContainerContentItem(name=codes.EVALUATIONS, relationship_type="CONTAINS")
    said.ContentSequence = ContentSequence(
        [
            TextContentItem(name=codes.COMMENT, value=words, relationship_type="CONTAINS")
            for words in sentences(finding)
        ]
    )
    found[0].ContentSequence.append(said)
    return found


def _list_sources(content: MeasurementReport, source: SourceHeaders) -> None:
    """Put all sources into the image library, what is said of the first above them all.

    They are slices of one series; 300 descriptions alike took highdicom 6 s (TID 1600, row 3).
    """
    from highdicom.sr import CodedConcept, ContentSequence, ImageContentItem

    (library,) = [i for i in content[0].ContentSequence if i.name.value == _LIBRARY]
    group = library.ContentSequence[0]
    (first,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
    known = {item.name.value for item in group.ContentSequence}
    shared = [item for item in first.ContentSequence if item.name.value not in known]
    others = [item for item in group.ContentSequence if item.ValueType != "IMAGE"]
    images = [
        ImageContentItem(
            name=CodedConcept("260753009", "SCT", "Source"),
            referenced_sop_class_uid=SecondaryCaptureImageStorage,
            referenced_sop_instance_uid=header.SOPInstanceUID,
            relationship_type="CONTAINS",
        )
        for header in source.headers
    ]
    group.ContentSequence = ContentSequence([*others, *shared, *images])


def _observer(model: ModelName) -> ObservationContext:
    """Return the model as the device that observed (TID 1004)."""
    from highdicom.sr import (
        CodedConcept,
        DeviceObserverIdentifyingAttributes,
        ObservationContext,
        ObserverContext,
    )

    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", model.weights, model.fingerprint, RELEASE),
        name=f"{PRODUCT} {RELEASE}",
        manufacturer_name=MANUFACTURER,
        model_name=model.name,
        serial_number=f"weights SHA-256 {model.weights}",
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=device,
        )
    )


def _answer(finding: ReportedScore) -> MeasurementsAndQualitativeEvaluations:
    """Return the numbers and what the model makes of them, without a place in the image."""
    from highdicom.sr import (
        AlgorithmIdentification,
        MeasurementsAndQualitativeEvaluations,
        TrackingIdentifier,
    )

    score = finding.score
    numbers = [m for quantity in score.quantities for m in _measured(quantity)]
    if score.coverage is not None and score.prediction_set is not None:
        numbers.append(_number(Own.COVERAGE.value, score.coverage))
    if score.unlike_training is not None:
        numbers.append(_number(Own.USUAL.value, score.unlike_training))
    numbers += [
        _number(own(f"Attribution: {a.column}"), a.value, Own.ATTRIBUTION.value)
        for a in score.attributions
    ]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=finding.identity.instance_uid(Kind.REPORT, "answer"),
            identifier=short(score.model.name),
        ),
        algorithm_id=AlgorithmIdentification(
            name=score.model.name,
            version=score.model.weights,
            manufacturer=MANUFACTURER,
            parameters=[f"configuration SHA-256 {score.model.fingerprint}"],
            family=AI,
        ),
        measurements=numbers,
        qualitative_evaluations=list(_evaluations(score)),
    )


def _measured(quantity: Quantity) -> Iterator[Measurement]:
    """Yield a quantity, the ends of its interval, and the network's own output."""
    name = codes.concept(quantity.code, quantity.meaning)
    unit = codes.unit_of(quantity.unit)
    yield _number(name, quantity.value, unit=unit)
    if quantity.low is not None and quantity.high is not None:
        yield _number(name, quantity.low, Own.LOW.value, unit)
        yield _number(name, quantity.high, Own.HIGH.value, unit)
    yield _number(name, quantity.raw, Own.RAW.value, unit)
    if quantity.promise is not None:
        yield _number(Own.HELD.value, quantity.promise)


def _number(
    name: Code,
    value: float,
    derivation: Code | None = None,
    unit: Code = codes.RATIO,
    method: Code | None = None,
) -> Measurement:
    from highdicom.sr import Measurement

    return Measurement(
        name=name, value=float(value), unit=unit, derivation=derivation, method=method
    )


def _evaluations(score: Score) -> Iterator[QualitativeEvaluation]:
    from highdicom.sr import QualitativeEvaluation

    answered = codes.YES if score.abstained is None else codes.NO
    yield QualitativeEvaluation(Own.ANSWERED.value, answered)
    if score.prediction_set is not None:
        for label in score.prediction_set:
            yield QualitativeEvaluation(Own.SET.value, own(label))
        if not score.prediction_set:
            yield QualitativeEvaluation(Own.SET.value, Own.NOTHING.value)


def _outlined(finding: ReportedScore, segmentation: Dataset | None) -> Iterator[Group]:
    """Yield each structure's volume, or its areas in images that are no volume."""
    if finding.score.outlines is None:
        return
    given = finding.score.outlines.codes
    for region in regions(finding.score.outlines, finding.source, segmentation):
        named = codes.structure(region.structure, given.get(region.structure))
        yield _group(region, named, finding, segmentation)


def _group(
    region: Region, named: tuple[Code, Code], finding: ReportedScore, segmentation: Dataset | None
) -> Group:
    from highdicom import sr

    source, (category, kind) = finding.source, named
    tracking = sr.TrackingIdentifier(
        uid=finding.identity.instance_uid(Kind.SEGMENTATION, f"segment {region.number}"),
        identifier=short(region.structure),
    )
    method = None if region.calibration is None else own(region.calibration.method)
    number = _number(region.quantity, region.size, unit=region.unit, method=method)
    if segmentation is None or not region.frames:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_category=category,
            finding_type=kind,
            measurements=[number],
        )
    if region.source is None:
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_category=category,
            finding_type=kind,
            measurements=[number],
            referenced_segment=_drawn(segmentation, region.number, source),
        )
    header = source.headers[region.source[0]]
    frames = [region.source[1] + 1] if frames_of(header) > 1 else None
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_category=category,
        finding_type=kind,
        measurements=[number],
        referenced_segment=sr.ReferencedSegmentationFrame(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            list(region.frames),
            region.number,
            sr.SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID, frames),
        ),
    )


def _drawn(segmentation: Dataset, number: int, source: SourceHeaders) -> ReferencedSegment:
    """Return a segment with what it was drawn on: a series, or images of several (TID 1411)."""
    from highdicom import sr

    images = [
        sr.SourceImageForSegmentation(h.SOPClassUID, h.SOPInstanceUID) for h in source.headers
    ]
    alone = len(source.series) == 1
    # Not from_segmentation: it fails where highdicom itself wrote a single segment.
    return sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        number,
        source_images=None if alone else images,
        source_series=sr.SourceSeriesForSegmentation(source.series[0]) if alone else None,
    )
