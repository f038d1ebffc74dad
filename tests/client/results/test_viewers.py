"""Reports as viewers read them: dcmqi's reader, and the code that viewers on Cornerstone share."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import measure_site
from client.results.identity import Kind
from client.results.measured_report import MeasuredStudy, write_measured
from client.results.score import Score
from client.results.writing import write_results
from client.site.cache import Cache
from common.config.parts.coded_concept import CodedConcept
from tests.client.dicom_files import SHARED, write_labels
from tests.client.radiomics.test_outline import enclosed
from tests.client.scores import (
    diagnosed,
    enhanced,
    faults,
    hippocampus,
    outlined,
    radiograph,
    ultrasound,
    volume,
)
from tests.peers import program, viewer


def report_of(score: Score, out: Path) -> Path:
    (found,) = [one.path for one in write_results(score, out) if one.kind is Kind.REPORT]
    return found


def numbers(item: Dataset) -> Iterator[Dataset]:
    """Yield every measurement of a report; what its image library tells of images is none."""
    for one in item.get("ContentSequence", ()):
        if one.ValueType == "NUM":
            yield one
        if one.ValueType != "CONTAINER" or one.ConceptNameCodeSequence[0].CodeValue != "111028":
            yield from numbers(one)


def origins(number: Dataset) -> list[str]:
    """Return what a number was inferred from, by value type."""
    inferred = [
        one for one in number.get("ContentSequence", ()) if one.RelationshipType == "INFERRED FROM"
    ]
    for one in inferred:
        if one.ValueType == "SCOORD":
            (image,) = one.ContentSequence
            assert (image.RelationshipType, image.ValueType) == ("SELECTED FROM", "IMAGE")
        else:
            reference = one.ReferencedSOPSequence[0]
            assert "ReferencedSegmentNumber" in reference or "ReferencedFrameNumber" in reference
    return [one.ValueType for one in inferred]


def by_dcmqi(report: Path, to: Path) -> list[dict[str, object]]:
    """Return the measurement groups of a report as dcmqi's tid1500reader writes them."""
    code = "import sys; from dcmqi import tid1500reader; sys.exit(tid1500reader())"
    subprocess.run(
        [sys.executable, "-c", code, "--inputDICOM", report, "--outputMetadata", to],
        check=True,
        capture_output=True,
    )
    found: list[dict[str, object]] = json.loads(to.read_text())["Measurements"]
    return found


def hydrated(report: Path, sources: tuple[Path, ...]) -> dict[str, list[dict[str, object]]]:
    """Return by tool what @cornerstonejs/adapters makes of a report."""
    script = Path(__file__).parent / "viewer" / "hydrate.mjs"
    done = subprocess.run(
        [program("node"), script, viewer(), report, *sources],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return found


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["volume", "loop", "enhanced", "radiograph", "series"])
def test_every_number_comes_from_a_place_in_the_images_and_dcmqi_reads_it(
    tmp_path: Path, kind: str
) -> None:
    write = {
        "volume": lambda to: outlined(volume(to)),
        "loop": lambda to: outlined(ultrasound(to, frames=4)),
        "enhanced": lambda to: outlined(enhanced(to)),
        "radiograph": lambda to: diagnosed(radiograph(to)),
        "series": lambda to: diagnosed(volume(to)),
    }
    report = report_of(write[kind](tmp_path / "source"), tmp_path / "out")
    said = dcmread(report)
    found = [origins(number) for number in numbers(said)]
    assert len(found) > 3
    drawn = kind in {"volume", "loop", "enhanced"}
    assert {tuple(one) for one in found} == {("SCOORD", "IMAGE") if drawn else ("SCOORD",)}
    assert faults(report) == []
    read = by_dcmqi(report, tmp_path / "read.json")
    values = [float(item["value"]) for group in read for item in group["measurementItems"]]  # type: ignore[attr-defined]
    ours = [float(one.MeasuredValueSequence[0].NumericValue) for one in numbers(said)]
    assert values == pytest.approx(ours)


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["outlines", "answer"])
def test_the_report_is_the_root_that_names_every_other_result_and_the_model(
    tmp_path: Path, kind: str
) -> None:
    sources = volume(tmp_path / "source")
    score = outlined(sources) if kind == "outlines" else diagnosed(sources)
    results = write_results(score, tmp_path / "out")
    others = {r.sop_instance for r in results if r.sop_class and r.kind is not Kind.REPORT}
    assert len(others) == (2 if kind == "outlines" else 1)
    (path,) = [one.path for one in results if one.kind is Kind.REPORT]
    assert faults(path) == []
    said = dcmread(path)
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in said.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert others < evidence

    def named(item: Dataset) -> Iterator[str]:
        for one in item.get("ContentSequence", ()):
            yield from (r.ReferencedSOPInstanceUID for r in one.get("ReferencedSOPSequence", ()))
            yield from named(one)

    assert others < set(named(said))
    measured = by_dcmqi(path, tmp_path / "read.json")
    assert all(
        group["measurementAlgorithmIdentification"]["AlgorithmName"] == "a model"  # type: ignore[index]
        for group in measured
    )


@pytest.mark.processes
def test_a_viewer_shows_an_outline_where_it_was_drawn(tmp_path: Path) -> None:
    """On a public MR volume whose rows and columns lie askew in the patient."""
    score = hippocampus()
    shown = hydrated(report_of(score, tmp_path / "out"), score.sources)
    assert list(shown) == ["PlanarFreehandROI"]
    assert [one["finding"] for one in shown["PlanarFreehandROI"]] == ["anterior", "posterior"]
    assert score.outlines is not None
    headers = [dcmread(path, stop_before_pixels=True) for path in score.sources]
    for number, one in enumerate(shown["PlanarFreehandROI"], 1):
        within = score.outlines.labels == number
        most = int(np.count_nonzero(within, axis=(1, 2)).argmax())
        header = headers[most]
        assert one["image"] == f"{header.SOPInstanceUID}:1"
        points = np.array(one["points"]) - np.array(header.ImagePositionPatient, float)
        cosines = np.array(header.ImageOrientationPatient, float)
        rows = points @ cosines[3:] / float(header.PixelSpacing[0])
        columns = points @ cosines[:3] / float(header.PixelSpacing[1])
        drawn = np.argwhere(within[most])
        for found, axis in ((rows, 0), (columns, 1)):
            low, high = drawn[:, axis].min(), drawn[:, axis].max()
            assert (found.min(), found.max()) == pytest.approx((low - 0.5, high + 0.5), abs=1e-3)
        stats = one["stats"]
        assert isinstance(stats, dict)
        pixel = float(header.PixelSpacing[0]) * float(header.PixelSpacing[1])
        assert stats["area"] == pytest.approx(within[most].sum() * pixel, rel=1e-6)


@pytest.mark.processes
def test_a_viewer_shows_an_answer_around_the_image_that_explains_it(tmp_path: Path) -> None:
    malignant = CodedConcept(value="363346000", meaning="Malignant neoplastic disease")
    score = diagnosed(ultrasound(tmp_path / "source"))
    first = replace(score.quantities[0], finding=malignant)
    score = replace(
        score, quantities=(first, *score.quantities[1:]), codes={"malignant": malignant}
    )
    report = report_of(score, tmp_path / "out")
    assert faults(report) == []
    shown = hydrated(report, score.sources)["RectangleROI"]
    assert [one.get("finding") for one in shown] == [None, "Malignant neoplastic disease"]
    assert str(shown[1]["label"]) == "probability of malignant: 0.812 (0.700 to 0.900)"
    points = np.array(shown[0]["points"])
    assert (points.max(axis=0) - points.min(axis=0)).tolist()[:2] == [50, 40]
    groups = highdicom.sr.srread(report).content.get_image_measurement_groups()
    evaluations = [one for group in groups for one in group.get_qualitative_evaluations()]
    assert "363346000" in {one.value.value for one in evaluations}
    assert [g.finding_type.value for g in groups if g.finding_type] == ["363346000"]


def test_a_visit_that_the_images_belong_to_is_named(tmp_path: Path) -> None:
    sources = volume(tmp_path / "source")
    bare = report_of(outlined(sources), tmp_path / "bare")
    assert b"Time Point" not in bare.read_bytes()
    for path in sources:
        one = dcmread(path)
        one.ClinicalTrialTimePointID, one.ClinicalTrialTimePointDescription = "V2", "Week 12"
        one.LongitudinalTemporalOffsetFromEvent = 84.0
        one.LongitudinalTemporalEventType = "BASELINE"
        one.save_as(path)
    groups = highdicom.sr.srread(report_of(outlined(sources), tmp_path / "out")).content
    for group in groups.get_volumetric_roi_measurement_groups():
        said = {
            item.name.value: item
            for item in group[0].ContentSequence
            if item.RelationshipType == "HAS OBS CONTEXT"
        }
        assert said["C2348792"].value == "Week 12"
        assert said["126071"].value == "V2"
        assert said["128740"].value == 84
        (event,) = said["128740"].ContentSequence
        assert event.value.value == "121079"


def test_a_mask_that_a_person_drew_is_shown_on_its_slice_as_it_was_sent(tmp_path: Path) -> None:
    """Volumes are turned when they are read; what a report says is of the images as sent."""
    patient = min((SHARED / "hippocampus" / "mr-alpha").iterdir()).name
    site = tmp_path / "site"
    shutil.copytree(SHARED / "hippocampus" / "mr-alpha" / patient, site / patient)
    write_labels(site, [{"PatientID": patient, "mask": f"{patient}/seg.dcm"}])
    plan = MeasurePlan.model_validate({"structures": {"anterior": [1], "posterior": [2]}})
    (row,) = measure_site(site, plan, Cache(tmp_path / "cache")).rows
    study = MeasuredStudy(masks=row.masks, fractions={}, plan="a plan")
    said = dcmread(write_measured(study, tmp_path / "out").path)
    mask = dcmread(site / patient / "seg.dcm")
    drawn: dict[tuple[str, int], np.ndarray] = {}
    for frame, group in zip(mask.pixel_array, mask.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        where = str(group.PlanePositionSequence[0].ImagePositionPatient)
        drawn[where, number] = frame > 0
    places = {
        dcmread(path, stop_before_pixels=True).SOPInstanceUID: str(
            dcmread(path, stop_before_pixels=True).ImagePositionPatient
        )
        for path in (site / patient).glob("*.dcm")
        if path.name != "seg.dcm"
    }
    lines = {}
    for number in numbers(said):
        coordinates, segment = number.ContentSequence[-2:]
        image = coordinates.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        segment_number = segment.ReferencedSOPSequence[0].ReferencedSegmentNumber
        points = np.array(coordinates.GraphicData).reshape(-1, 2)
        lines[segment_number] = (drawn[places[image], segment_number], points)
    assert set(lines) == {1, 2}
    for within, points in lines.values():
        held = np.argwhere(within)
        assert points[:, 1].min() == pytest.approx(held[:, 0].min(), abs=1e-3)
        assert points[:, 1].max() == pytest.approx(held[:, 0].max() + 1, abs=1e-3)
        assert points[:, 0].min() == pytest.approx(held[:, 1].min(), abs=1e-3)
        assert points[:, 0].max() == pytest.approx(held[:, 1].max() + 1, abs=1e-3)
        assert abs(enclosed(points)) == pytest.approx(within.sum(), rel=0.05)
