"""Areas are in mm2 only where a pixel's size in the patient is known (PS3.3 10.7.1)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.dicom.reading.pixel_size import calibration_of, pixel_mm2
from client.results.equipment import every_item
from client.results.identity import Kind
from client.results.score import Outlines
from client.results.writing import write_results
from tests.client.dicom_files import image, noise, save
from tests.client.scores import diagnosed, given
from tests.client.structure_sets import item

CR, DX, MG = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "1.2"))
XA, US, SC, MR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("12.1", "6.1", "7", "4"))
TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
A, B = [0.1, 0.2], [0.05, 0.1]
DRAWN = np.zeros((40, 50), np.bool_)
DRAWN[10:20, 5:25] = True


def header(sop_class: str, modality: str, **values: object) -> Dataset:
    return item(SOPClassUID=sop_class, Modality=modality, **values)


def measured(spacing: list[float]) -> list[Dataset]:
    return [item(PixelMeasuresSequence=[item(PixelSpacing=spacing)])]


def region(spatial: int = 1, unit: int = 3, left: int = 0, right: int = 49) -> Dataset:
    return item(
        RegionSpatialFormat=spatial,
        PhysicalUnitsXDirection=unit,
        PhysicalUnitsYDirection=unit,
        RegionLocationMinX0=left,
        RegionLocationMinY0=0,
        RegionLocationMaxX1=right,
        RegionLocationMaxY1=39,
        PhysicalDeltaX=0.02,
        PhysicalDeltaY=0.01,
    )


CASES: dict[str, tuple[Dataset, float | None]] = {
    "MG, detector alone": (header(MG, "MG", ImagerPixelSpacing=A), None),
    "MG, the detector's repeated": (header(MG, "MG", ImagerPixelSpacing=A, PixelSpacing=A), None),
    "MG, repeated and rounded": (
        header(MG, "MG", ImagerPixelSpacing=A, PixelSpacing=[0.10001, 0.2]),
        None,
    ),
    "MG, repeated, magnification said": (
        header(
            MG,
            "MG",
            ImagerPixelSpacing=A,
            PixelSpacing=A,
            EstimatedRadiographicMagnificationFactor=1.8,
        ),
        None,
    ),
    "MG, corrected": (header(MG, "MG", ImagerPixelSpacing=A, PixelSpacing=B), 0.005),
    "DX, said": (
        header(
            DX, "DX", ImagerPixelSpacing=A, PixelSpacing=A, PixelSpacingCalibrationType="FIDUCIAL"
        ),
        0.02,
    ),
    "DX, said to be of no kind": (
        header(DX, "DX", ImagerPixelSpacing=A, PixelSpacing=A, PixelSpacingCalibrationType=""),
        None,
    ),
    "DX, said without spacing": (
        header(DX, "DX", ImagerPixelSpacing=A, PixelSpacingCalibrationType="GEOMETRY"),
        None,
    ),
    "CR, nothing else": (header(CR, "CR", PixelSpacing=A), None),
    "XA, repeated": (header(XA, "XA", ImagerPixelSpacing=A, PixelSpacing=A), None),
    "a capture of a radiograph": (header(SC, "DX", PixelSpacing=A), None),
    "a capture": (header(SC, "OT", PixelSpacing=A), 0.02),
    "a film, scanned": (header(SC, "OT", NominalScannedPixelSpacing=A, PixelSpacing=A), None),
    "a film, calibrated": (header(SC, "OT", NominalScannedPixelSpacing=A, PixelSpacing=B), 0.005),
    "a film alone": (header(SC, "OT", NominalScannedPixelSpacing=A), None),
    "MR": (header(MR, "MR", PixelSpacing=A), 0.02),
    "tomosynthesis": (
        header(
            TOMOSYNTHESIS,
            "MG",
            SharedFunctionalGroupsSequence=measured(A),
            PerFrameFunctionalGroupsSequence=[
                item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 0])])
            ],
        ),
        0.02,
    ),
    "US, by spacing": (header(US, "US", PixelSpacing=A), 0.02),
    "US, a region of tissue": (header(US, "US", SequenceOfUltrasoundRegions=[region()]), 0.02),
    "US, the region rather than the spacing": (
        header(US, "US", SequenceOfUltrasoundRegions=[region()], PixelSpacing=[1, 1]),
        0.02,
    ),
    "US, a region of time": (
        header(US, "US", SequenceOfUltrasoundRegions=[region(unit=4)], PixelSpacing=A),
        None,
    ),
    "US, a spectrum": (header(US, "US", SequenceOfUltrasoundRegions=[region(spatial=3)]), None),
    "US, beside the region": (
        header(US, "US", SequenceOfUltrasoundRegions=[region(right=10)]),
        None,
    ),
    "US, the second region": (
        header(US, "US", SequenceOfUltrasoundRegions=[region(left=30, unit=4), region(right=29)]),
        0.02,
    ),
    "US, a region that says nothing": (
        header(US, "US", SequenceOfUltrasoundRegions=[Dataset()], PixelSpacing=A),
        None,
    ),
    "a spacing of nothing": (header(MR, "MR", PixelSpacing=[0, 0.2]), None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pixel_has_a_size_where_the_image_is_calibrated_to_the_patient(name: str) -> None:
    given_header, expected = CASES[name]
    found = pixel_mm2(given_header, DRAWN)
    assert found == (None if expected is None else pytest.approx(expected))


UNSAID = "a PixelSpacing whose calibration is not said"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MG, corrected", UNSAID),
        ("DX, said", "PixelSpacing, calibrated by FIDUCIAL"),
        ("a film, calibrated", UNSAID),
        ("a capture", UNSAID),
        ("tomosynthesis", None),
        ("US, a region of tissue", "the calibration of ultrasound's regions"),
        ("US, by spacing", UNSAID),
    ],
)
def test_what_lengths_rest_on_is_said_but_of_slices(name: str, said: str | None) -> None:
    found = calibration_of(CASES[name][0])
    assert (None if found is None else found.method) == said


GEOMETRY = {
    "PixelSpacingCalibrationType": "GEOMETRY",
    "PixelSpacingCalibrationDescription": "assumed depth 60 mm",
}
RESTING = "Lengths in mm rest on"


@pytest.mark.parametrize(
    ("spacing", "more", "unit", "size", "said"),
    [
        (A, {}, "{pixels}", 200.0, None),
        (B, {}, "mm2", 200 * 0.005, f"{RESTING} {UNSAID}."),
        (
            A,
            GEOMETRY,
            "mm2",
            200 * 0.02,
            f"{RESTING} PixelSpacing, calibrated by GEOMETRY (assumed depth 60 mm).",
        ),
    ],
)
def test_report_and_fhir_say_the_same_area_and_on_what_it_rests(
    tmp_path: Path,
    spacing: list[float],
    more: dict[str, str],
    unit: str,
    size: float,
    said: str | None,
) -> None:
    one = given(image(noise(40, 50)), CR, "CR")
    one.ImagerPixelSpacing, one.PixelSpacing = A, spacing
    for name, value in more.items():
        setattr(one, name, value)
    path = save(tmp_path / "source" / "cr.dcm", one)
    outlines = Outlines(labels=DRAWN[None].astype(np.uint8), structures=("lesion",))
    score = replace(
        diagnosed([path]),
        kind="segmentation",
        quantities=(),
        heatmap=None,
        prediction_set=None,
        outlines=outlines,
    )
    results = {result.kind: result.path for result in write_results(score, tmp_path / "out")}
    report = highdicom.sr.srread(results[Kind.REPORT])
    (group,) = report.content.get_planar_roi_measurement_groups()
    (number,) = group.get_measurements()
    assert (number.unit.value, number.value) == (unit, pytest.approx(size))
    method = None if number.method is None else number.method.meaning
    texts = {str(item.get("TextValue")) for item in every_item(report) if "TextValue" in item}
    bundle = json.loads(results[Kind.DIAGNOSTIC_REPORT].read_text())
    resources = [entry["resource"] for entry in bundle["entry"]]
    (observed,) = [one for one in resources if one["resourceType"] == "Observation"]
    value = observed["valueQuantity"]
    assert (value["code"], value["value"]) == (unit, pytest.approx(size))
    notes = {note["text"] for note in observed["note"]}
    (concluded,) = [r["conclusion"] for r in resources if r["resourceType"] == "DiagnosticReport"]
    for told in (texts, notes, set(concluded.splitlines())):
        assert {one for one in told if one.startswith(RESTING)} == ({said} if said else set())
    assert (method is None) == ("method" not in observed) == (said is None)
    assert said is None or method in said
