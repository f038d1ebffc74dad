"""DICOM SR of what was measured in outlines that people drew (PS3.16, TID 1500, 1411 and 1501)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from client.dicom.quiet import quiet
from client.dicom.reading.read import SEGMENTATIONS
from client.radiomics.feature import Feature
from client.radiomics.measured import MeasuredMask, MeasuredStructure
from client.results import codes
from client.results.codes import RESEARCH
from client.results.equipment import MANUFACTURER, PRODUCT, stamp_as
from client.results.identity import Identity, Kind, uid_of
from client.results.inferred_from import NumberOrigin, infer, time_point
from client.results.inherited import patient_and_study
from client.results.source_images import SourceHeaders, read_source
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
from client.results.writing import Result, put
from common.config.parts.coded_concept import CodedStructure
from common.platform.code_hash import RELEASE
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from highdicom.sr import (
        Measurement,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    Group = (
        MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations
    )

_FRACTION = Code("70822001", "SCT", "Cardiac ejection fraction")


@dataclass(frozen=True, kw_only=True)
class MeasuredStudy:
    """What was measured in the masks of one study."""

    masks: tuple[MeasuredMask, ...]
    fractions: Mapping[str, float]  # by structure: ejection fraction, %
    plan: str  # SHA-256 of what was asked for
    codes: Mapping[str, CodedStructure] = field(default_factory=dict)  # by structure, where given


@dataclass(frozen=True, kw_only=True)
class _Reported:
    """A study with all that its report is written from."""

    study: MeasuredStudy
    source: SourceHeaders  # of all masks
    segmentations: Mapping[Path, Dataset]  # headers of masks that are DICOM SEG
    identity: Identity


def write_measured(study: MeasuredStudy, out: Path, made: datetime | None = None) -> Result:
    """Write the SR of a study's measurements; one that is there already is kept as it is.

    CohortError says why none can be written.
    """
    with quiet():
        paths = dict.fromkeys(path for mask in study.masks for path in mask.sources)
        source = read_source(tuple(paths), one_stack=False)
        segmentations = dict(_segmentations(study))
        found = _Reported(
            study=study,
            source=source,
            segmentations=segmentations,
            identity=_identity(study, source, segmentations),
        )
        path = out / found.identity.file_name(Kind.REPORT)
        if path.is_file():
            return put(dcmread(path), path, Kind.REPORT)
        return put(_report(found, made or datetime.now().astimezone()), path, Kind.REPORT)


def _segmentations(study: MeasuredStudy) -> Iterator[tuple[Path, Dataset]]:
    for mask in study.masks:
        if mask.mask is None or mask.mask.name.lower().endswith((".nii", ".nii.gz")):
            continue
        try:
            header = dcmread(mask.mask, stop_before_pixels=True)
        except OSError as error:
            message = f"The mask {mask.mask} cannot be read any more: {error.strerror}."
            raise CohortError(message) from error
        if header.get("SOPClassUID") in SEGMENTATIONS:
            yield mask.mask, header


def _identity(
    study: MeasuredStudy, source: SourceHeaders, segmentations: Mapping[Path, Dataset]
) -> Identity:
    said = {
        "release": RELEASE,
        "plan": study.plan,
        "patient": [source.read[0].patient, source.read[0].study],
        "instances": [str(header.SOPInstanceUID) for header in source.headers],
        "masks": [
            [mask.name, one.name, one.unit, sorted((f.name, v) for f, v in one.features.items())]
            for mask in study.masks
            for one in mask.structures
        ],
        "fractions": dict(study.fractions),
        "segmentations": [str(one.get("SOPInstanceUID")) for one in segmentations.values()],
    }
    return Identity(
        score=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        series=uid_of("measurements", source.read[0].study, study.plan),
    )


def _report(found: _Reported, made: datetime) -> Dataset:
    others = [_evidence(found.source, header) for header in found.segmentations.values()]
    dataset = document(_content(found), found.source, found.identity, others)
    stamp_as(dataset, Kind.REPORT, words="measurements", serial=found.study.plan, made=made)
    return dataset


def _evidence(source: SourceHeaders, segmentation: Dataset) -> Dataset:
    found = patient_and_study(source.first)
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        setattr(found, name, segmentation.get(name))
    found.Modality = "SEG"
    return found


def _content(found: _Reported) -> MeasurementReport:
    from highdicom.sr import MeasurementReport

    observer = device_observer(
        uid=uid_of("device", PRODUCT, RELEASE),
        model="measurements",
        serial=f"plan SHA-256 {found.study.plan}",
    )
    content = MeasurementReport(
        observation_context=observer,
        procedure_reported=PROCEDURE,
        imaging_measurements=[*_structures(found), *_fractions(found)],
        title=TITLE,
        referenced_images=[evidence_of(found.source, found.source.first)],
    )
    list_sources(content, found.source)
    add_sentences(content, _sentences(found))
    return content


def _sentences(found: _Reported) -> Iterator[str]:
    yield RESEARCH
    yield f"Measured by {MANUFACTURER} {RELEASE} in outlines that were given, as IBSI defines it."
    for mask in found.study.masks:
        for one in mask.structures:
            for notice in one.notices:
                yield f"{_called(mask, one.name)}: {notice.reason.value} ({notice.detail})"


def _called(mask: MeasuredMask, structure: str) -> str:
    return f"{structure}, {mask.name}" if mask.name else structure


def _structures(found: _Reported) -> Iterator[Group]:
    for mask in found.study.masks:
        for one in mask.structures:
            origin = _origin(found, mask, one)
            yield infer(_structure(found, mask, one, origin), [origin])


def _structure(
    found: _Reported, mask: MeasuredMask, one: MeasuredStructure, origin: NumberOrigin
) -> Group:
    """Return a structure's measurements, on its segment where it is one segment of a SEG."""
    from highdicom import sr

    segment = _segment(found, mask, one)
    headers = _headers(found.source, mask.sources)
    category, kind = codes.structure(one.name, found.study.codes.get(one.name))
    tracking = sr.TrackingIdentifier(
        uid=found.identity.instance_uid(Kind.REPORT, f"{mask.name} {one.name}"),
        identifier=origin.called(_called(mask, one.name)),
    )
    numbers = [
        measurement(codes.VOLUME, one.features[Feature.VOLUME], unit=codes.MM3),
        *_largest_area(mask, one),
        *feature_measurements(one),
    ]
    if segment is None:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            time_point_context=time_point(found.source.first),
            finding_category=category,
            finding_type=kind,
            measurements=numbers,
            source_images=[
                sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)
                for header in headers
            ],
        )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        time_point_context=time_point(found.source.first),
        finding_category=category,
        finding_type=kind,
        measurements=numbers,
        referenced_segment=referenced(*segment, headers),
    )


def _largest_area(mask: MeasuredMask, one: MeasuredStructure) -> Iterator[Measurement]:
    outline = mask.outlines.get(one.name)
    if outline is not None:
        yield largest_area(outline.area)


def _origin(found: _Reported, mask: MeasuredMask, one: MeasuredStructure) -> NumberOrigin:
    """Return what a structure's numbers were inferred from; of one that is nowhere, an image."""
    headers = _headers(found.source, mask.sources)
    segment, outline = _segment(found, mask, one), mask.outlines.get(one.name)
    shown = {str(h.SOPInstanceUID): h for h in headers}
    image = None if outline is None else shown.get(outline.instance)
    if outline is None or image is None:
        return NumberOrigin(image=headers[len(headers) // 2], frame=0)
    return NumberOrigin(
        image=image,
        frame=outline.frame,
        points=outline.points,
        segmentation=None if segment is None else segment[0],
        segment=0 if segment is None else segment[1],
    )


def _segment(
    found: _Reported, mask: MeasuredMask, one: MeasuredStructure
) -> tuple[Dataset, int] | None:
    """Return the segment that a structure is; None where it is none, several, or not drawn."""
    header = None if mask.mask is None else found.segmentations.get(mask.mask)
    numbers = mask.numbers.get(one.name, ())
    held = {int(item.SegmentNumber) for item in header.SegmentSequence} if header else set()
    if header is None or len(numbers) != 1 or not held >= set(numbers) or not one.volume:
        return None
    return header, numbers[0]


def _headers(source: SourceHeaders, paths: Sequence[Path]) -> list[Dataset]:
    wanted = set(paths)
    return [h for path, h in zip(source.paths, source.headers, strict=True) if path in wanted]


def _fractions(found: _Reported) -> Iterator[Group]:
    from highdicom import sr

    for structure, value in found.study.fractions.items():
        category, kind = codes.structure(structure, found.study.codes.get(structure))
        phases = [
            _origin(found, mask, one)
            for mask in found.study.masks
            for one in mask.structures
            if one.name == structure
        ]
        fraction = measurement(_FRACTION, value, unit=codes.unit_of("%"))
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=found.identity.instance_uid(Kind.REPORT, f"ejection fraction {structure}"),
                identifier=phases[0].called(f"{structure}, ejection fraction"),
            ),
            time_point_context=time_point(found.source.first),
            finding_category=category,
            finding_type=kind,
            measurements=[fraction],
        )
        yield infer(group, phases)
