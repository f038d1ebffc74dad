"""DICOM SR of a score: Comprehensive 3D SR with the measurement report TID 1500 (PS3.16)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from client.dicom.codec.decode import frames_of
from client.results import codes
from client.results.codes import Own, own, short
from client.results.equipment import AI, MANUFACTURER, ReportedScore, stamp
from client.results.identity import Kind, uid_of
from client.results.regions import Region, regions
from client.results.score import ModelName, Quantity, Score
from client.results.score_sentences import sentences
from client.results.sr_document import (
    PROCEDURE,
    TITLE,
    add_sentences,
    device_observer,
    document,
    evidence_of,
    feature_measurements,
    list_sources,
    measurement,
    referenced,
)
from common.platform.code_hash import RELEASE

if TYPE_CHECKING:
    from highdicom.sr import (
        Measurement,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    Group = (
        MeasurementsAndQualitativeEvaluations
        | PlanarROIMeasurementsAndQualitativeEvaluations
        | VolumetricROIMeasurementsAndQualitativeEvaluations
    )


def report(finding: ReportedScore, segmentation: Dataset | None) -> Dataset:
    """Return the SR; preliminary and unverified, as no person has looked at it.

    segmentation: the SEG of the same score, whose segments the volumes are of.
    """
    others = [] if segmentation is None else [segmentation]
    dataset = document(_content(finding, segmentation), finding.source, finding.identity, others)
    stamp(dataset, finding, Kind.REPORT)
    return dataset


def _content(finding: ReportedScore, segmentation: Dataset | None) -> MeasurementReport:
    from highdicom.sr import MeasurementReport

    found = MeasurementReport(
        observation_context=_observer(finding.score.model),
        procedure_reported=PROCEDURE,
        imaging_measurements=[_answer(finding), *_outlined(finding, segmentation)],
        title=TITLE,
        referenced_images=[evidence_of(finding.source, finding.source.first)],
    )
    list_sources(found, finding.source)
    add_sentences(found, sentences(finding))
    return found


def _observer(model: ModelName) -> ObservationContext:
    return device_observer(
        uid=uid_of("device", model.weights, model.fingerprint, RELEASE),
        model=model.name,
        serial=f"weights SHA-256 {model.weights}",
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
        numbers.append(measurement(Own.COVERAGE.value, score.coverage))
    if score.unlike_training is not None:
        numbers.append(measurement(Own.USUAL.value, score.unlike_training))
    numbers += [
        measurement(own(f"Attribution: {a.column}"), a.value, Own.ATTRIBUTION.value)
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
    yield measurement(name, quantity.value, unit=unit)
    if quantity.low is not None and quantity.high is not None:
        yield measurement(name, quantity.low, Own.LOW.value, unit)
        yield measurement(name, quantity.high, Own.HIGH.value, unit)
    yield measurement(name, quantity.raw, Own.RAW.value, unit)
    if quantity.promise is not None:
        yield measurement(Own.HELD.value, quantity.promise)


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
    size = measurement(region.quantity, region.size, unit=region.unit, method=method)
    more = () if region.measured is None else feature_measurements(region.measured)
    numbers = [size, *more]
    if segmentation is None or not region.frames:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_category=category,
            finding_type=kind,
            measurements=numbers,
        )
    if region.source is None:
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            finding_category=category,
            finding_type=kind,
            measurements=numbers,
            referenced_segment=referenced(segmentation, region.number, source.headers),
        )
    header = source.headers[region.source[0]]
    frames = [region.source[1] + 1] if frames_of(header) > 1 else None
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_category=category,
        finding_type=kind,
        measurements=numbers,
        referenced_segment=sr.ReferencedSegmentationFrame(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            list(region.frames),
            region.number,
            sr.SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID, frames),
        ),
    )
