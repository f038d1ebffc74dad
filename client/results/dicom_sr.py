"""DICOM SR of a score: Comprehensive 3D SR with the measurement report TID 1500 (PS3.16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from client.dicom.codec.decode import frames_of
from client.dicom.reading.pixel_size import pixel_mm2
from client.radiomics.outline import outline_of
from client.results import codes
from client.results.codes import Own, own, short
from client.results.equipment import AI, MANUFACTURER, ReportedScore, stamp
from client.results.identity import Kind, uid_of
from client.results.inferred_from import NumberOrigin, infer, time_point
from client.results.picture import chosen_frame
from client.results.regions import Region, regions
from client.results.score import ModelName, Quantity, Score
from client.results.score_sentences import sentences
from client.results.source_images import SourceHeaders
from client.results.sr_document import (
    PROCEDURE,
    TITLE,
    add_sentences,
    device_observer,
    document,
    evidence_of,
    feature_measurements,
    largest_area,
    list_sources,
    measurement,
    referenced,
)
from common.platform.code_hash import RELEASE

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
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


def report(
    finding: ReportedScore, segmentation: Dataset | None, capture: Dataset | None = None
) -> Dataset:
    """Return the SR; preliminary and unverified, as no person has looked at it.

    It is the root of a score's results (IHE AIR): it names the SEG, whose segments the volumes are
    of, and the capture, which illustrates them.
    """
    others = [one for one in (segmentation, capture) if one is not None]
    content = _content(finding, segmentation, capture)
    dataset = document(content, finding.source, finding.identity, others)
    stamp(dataset, finding, Kind.REPORT)
    return dataset


def _content(
    finding: ReportedScore, segmentation: Dataset | None, capture: Dataset | None
) -> MeasurementReport:
    from highdicom.sr import MeasurementReport

    answer, *more = _answers(finding)
    if capture is not None:
        _illustrate(answer, capture)
    found = MeasurementReport(
        observation_context=_observer(finding.score.model),
        procedure_reported=PROCEDURE,
        imaging_measurements=[answer, *more, *_outlined(finding, segmentation)],
        title=TITLE,
        referenced_images=[evidence_of(finding.source, finding.source.first)],
    )
    list_sources(found, finding.source)
    add_sentences(found, sentences(finding))
    return found


def _illustrate(group: MeasurementsAndQualitativeEvaluations, capture: Dataset) -> None:
    """Name the picture that was drawn of the finding."""
    from highdicom.sr import ImageContentItem

    item = ImageContentItem(
        name=codes.ILLUSTRATION,
        referenced_sop_class_uid=capture.SOPClassUID,
        referenced_sop_instance_uid=capture.SOPInstanceUID,
        relationship_type="CONTAINS",
    )
    group[0].ContentSequence.append(item)


def _algorithm(model: ModelName) -> AlgorithmIdentification:
    """Return which model it was (TID 4019)."""
    from highdicom.sr import AlgorithmIdentification

    return AlgorithmIdentification(
        name=model.name,
        version=model.weights,
        manufacturer=MANUFACTURER,
        parameters=[f"configuration SHA-256 {model.fingerprint}"],
        family=AI,
    )


def _observer(model: ModelName) -> ObservationContext:
    return device_observer(
        uid=uid_of("device", model.weights, model.fingerprint, RELEASE),
        model=model.name,
        serial=f"weights SHA-256 {model.weights}",
    )


def _answers(finding: ReportedScore) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    """Yield the numbers of the images as a whole: the answer, then each label that has a code."""
    score = finding.score
    numbers = [
        m for quantity in score.quantities if not quantity.finding for m in _measured(quantity)
    ]
    if score.coverage is not None and score.prediction_set is not None:
        numbers.append(measurement(Own.COVERAGE.value, score.coverage))
    if score.unlike_training is not None:
        numbers.append(measurement(Own.USUAL.value, score.unlike_training))
    numbers += [
        measurement(own(f"Attribution: {a.column}"), a.value, Own.ATTRIBUTION.value)
        for a in score.attributions
    ]
    yield _of_all_images(finding, "answer", numbers, evaluations=list(_evaluations(score)))
    for place, quantity in enumerate(score.quantities):
        if quantity.finding is not None:
            yield _of_all_images(finding, f"answer {place}", [*_measured(quantity)], quantity)


def _of_all_images(
    finding: ReportedScore,
    part: str,
    numbers: Sequence[Measurement],
    quantity: Quantity | None = None,
    evaluations: Sequence[QualitativeEvaluation] = (),
) -> MeasurementsAndQualitativeEvaluations:
    """Return a group of numbers that have no place in the images: they are of all of them."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, TrackingIdentifier

    model, origin = finding.score.model, _all_images(finding)
    code = None if quantity is None else quantity.finding
    words = model.name if quantity is None else f"{model.name}, {quantity.label}"
    if len(finding.source.frames) > 1:
        words += f" (all {len(finding.source.frames)} images)"
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=finding.identity.instance_uid(Kind.REPORT, part),
            identifier=origin.called(words) if numbers else short(words),
        ),
        time_point_context=time_point(finding.source.first),
        finding_type=None if code is None else codes.concept(code, ""),
        algorithm_id=_algorithm(model),
        measurements=numbers,
        qualitative_evaluations=evaluations,
    )
    if numbers:
        _comment(group, [quantity] if quantity else finding.score.quantities)
    return infer(group, [origin])


def _comment(group: MeasurementsAndQualitativeEvaluations, said: Sequence[Quantity]) -> None:
    """Say a group's numbers in words, which viewers show beside its line."""
    from highdicom.sr import TextContentItem

    words = "; ".join(f"{one.meaning}: {one.words}" for one in said)
    if words:
        item = TextContentItem(name=codes.COMMENT, value=words, relationship_type="CONTAINS")
        group[0].ContentSequence.append(item)


def _all_images(finding: ReportedScore) -> NumberOrigin:
    """Return where a number of all images is shown: on the one of the picture, or in the middle."""
    chosen, frames = chosen_frame(finding), finding.source.frames
    source, frame = frames[len(frames) // 2 if chosen is None else chosen]
    return NumberOrigin(image=finding.source.headers[source], frame=frame)


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
            coded = codes.concept(score.codes.get(label), label)
            yield QualitativeEvaluation(Own.SET.value, coded)
        if not score.prediction_set:
            yield QualitativeEvaluation(Own.SET.value, Own.NOTHING.value)


def _outlined(finding: ReportedScore, segmentation: Dataset | None) -> Iterator[Group]:
    """Yield each structure's volume, or its areas in images that are no volume."""
    if finding.score.outlines is None:
        return
    given = finding.score.outlines.codes
    for region in regions(finding.score.outlines, finding.source, segmentation):
        named = codes.structure(region.structure, given.get(region.structure))
        origin = _origin(region, finding.source, segmentation)
        yield infer(_group(region, named, finding, segmentation, origin), [origin])


def _group(
    region: Region,
    named: tuple[Code, Code],
    finding: ReportedScore,
    segmentation: Dataset | None,
    origin: NumberOrigin,
) -> Group:
    from highdicom import sr

    source, (category, kind) = finding.source, named
    tracking = sr.TrackingIdentifier(
        uid=finding.identity.instance_uid(Kind.SEGMENTATION, f"segment {region.number}"),
        identifier=origin.called(region.structure),
    )
    method = None if region.calibration is None else own(region.calibration.method)
    size = measurement(region.quantity, region.size, unit=region.unit, method=method)
    more = () if region.measured is None else feature_measurements(region.measured)
    numbers = [size, *_largest_area(region, source), *more]
    visit, model = time_point(source.first), _algorithm(finding.score.model)
    if segmentation is None or not region.frames:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            time_point_context=visit,
            algorithm_id=model,
            finding_category=category,
            finding_type=kind,
            measurements=numbers,
        )
    if region.source is None:
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            time_point_context=visit,
            algorithm_id=model,
            finding_category=category,
            finding_type=kind,
            measurements=numbers,
            referenced_segment=referenced(segmentation, region.number, source.headers),
        )
    header = source.headers[region.source[0]]
    frames = [region.source[1] + 1] if frames_of(header) > 1 else None
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        time_point_context=visit,
        algorithm_id=model,
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


def _largest_area(region: Region, source: SourceHeaders) -> Iterator[Measurement]:
    """Yield the area of a volume's structure where most of it is; others are areas anyway."""
    pixel = pixel_mm2(source.headers[region.shown[0]], region.drawn)
    if region.source is None and region.drawn.any() and pixel is not None:
        yield largest_area(float(np.count_nonzero(region.drawn)) * pixel)


def _origin(region: Region, source: SourceHeaders, segmentation: Dataset | None) -> NumberOrigin:
    """Return what a region's numbers were inferred from; of one that is nowhere, whole images."""
    number, frame = region.shown
    return NumberOrigin(
        image=source.headers[number],
        frame=frame,
        points=outline_of(region.drawn) if region.drawn.any() else None,
        segmentation=segmentation if region.frames else None,
        segment=region.number,
        frames=() if region.source is None else region.frames,
    )
