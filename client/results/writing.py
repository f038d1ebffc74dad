"""Writing of results as files: whole or not there, and the same file for the same score."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from client.dicom.quiet import quiet
from client.dicom.reasons import UnusableFile
from client.results.dicom_seg import check_outlines, segmentation
from client.results.dicom_sr import report
from client.results.equipment import ReportedScore
from client.results.fhir_diagnostic_report import diagnostic_report
from client.results.identity import Kind, identity_of
from client.results.score import Score
from client.results.secondary_capture import capture
from client.results.source_images import SourceHeaders, read_source
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError


@dataclass(frozen=True, kw_only=True)
class Result:
    """One file that a score became."""

    path: Path
    kind: Kind
    sop_class: str | None  # None for FHIR
    sop_instance: str | None
    series: str | None
    study: str  # StudyInstanceUID, as the source's


def write_results(score: Score, out: Path, made: datetime | None = None) -> tuple[Result, ...]:
    """Write SR, SEG, secondary capture and FHIR report of a score, those that it gives rise to.

    A result that is there already is kept as it is, so its time is when it was first written.
    CohortError says why none can be written.
    """
    with quiet():
        source = read_source(score.sources, score.beside)
        _check(score, source)
        finding = ReportedScore(
            score=score,
            source=source,
            identity=identity_of(score, source),
            made=made or datetime.now().astimezone(),
        )
        try:
            return tuple(_written(finding, out))
        except UnusableFile as problem:
            message = f"The picture cannot be drawn: {problem.reason.value} {problem.detail}"
            raise CohortError(message) from problem


def _check(score: Score, source: SourceHeaders) -> None:
    """Raise before anything is written, where a part of the score cannot be said."""
    if score.outlines is not None:
        check_outlines(score.outlines, source)
    numbers = [v for q in score.quantities for v in (q.value, q.raw, q.low, q.high)]
    numbers += [score.coverage, score.unlike_training, *(a.value for a in score.attributions)]
    if not all(math.isfinite(value) for value in numbers if value is not None):
        message = (
            f"The model {score.model.name} gave a number that is none (infinite or NaN), which no "
            "result can hold. Nothing was written; the image or the weights are at fault."
        )
        raise CohortError(message)
    if score.heatmap is not None:
        place, picture = (score.heatmap.source, score.heatmap.frame), score.heatmap.picture
        shape = source.read[place[0]].shape if picture is None else picture.shape[:2]
        if place not in source.frames or score.heatmap.values.shape != shape:
            message = (
                f"The heatmap of {score.heatmap.values.shape} is not on a frame of the sources "
                f"(source {place[0]}, frame {place[1]})."
            )
            raise CohortError(message)


def _written(finding: ReportedScore, out: Path) -> Iterator[Result]:
    drawn = _kept(finding, out, Kind.SEGMENTATION) or segmentation(finding)
    if drawn is not None:
        yield _put(finding, out, Kind.SEGMENTATION, drawn)
    shown = _kept(finding, out, Kind.CAPTURE) or capture(finding)
    # The report is the root of the results: it names the others.
    said = _kept(finding, out, Kind.REPORT) or report(finding, drawn, shown)
    yield _put(finding, out, Kind.REPORT, said)
    if shown is not None:
        yield _put(finding, out, Kind.CAPTURE, shown)
    path = out / finding.identity.file_name(Kind.DIAGNOSTIC_REPORT)
    if not path.exists():
        replace_durably(path, diagnostic_report(finding), mode=0o600)
    yield Result(
        path=path,
        kind=Kind.DIAGNOSTIC_REPORT,
        sop_class=None,
        sop_instance=None,
        series=None,
        study=finding.source.read[0].study,
    )


def _kept(finding: ReportedScore, out: Path, kind: Kind) -> Dataset | None:
    path = out / finding.identity.file_name(kind)
    return dcmread(path) if path.is_file() else None


def _put(finding: ReportedScore, out: Path, kind: Kind, dataset: Dataset) -> Result:
    return put(dataset, out / finding.identity.file_name(kind), kind)


def put(dataset: Dataset, path: Path, kind: Kind) -> Result:
    """Write a result where there is none, readable by this user alone: it names the patient."""
    if not path.is_file():
        replace_durably(path, encoded(dataset), mode=0o600)
    return Result(
        path=path,
        kind=kind,
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(dataset.SOPInstanceUID),
        series=str(dataset.SeriesInstanceUID),
        study=str(dataset.StudyInstanceUID),
    )


def encoded(dataset: Dataset) -> bytes:
    """Return a file's bytes (PS3.10 7), explicit little endian."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
