from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from client.dicom.masks.seg import read_segmentation
from client.dicom.quiet import quiet
from client.dicom.reading.read import read_dataset, read_header, read_pixels
from client.dicom.reading.volume import stack_slices
from client.results.codes import RESEARCH
from client.results.colours import cielab
from client.results.identity import Kind
from client.results.picture import BANNER
from client.results.score import Outlines, Quantity, Score
from client.results.writing import Result, write_results
from common.config.parts.coded_concept import CodedConcept, CodedStructure
from common.platform.errors import CohortError
from tests.client.dicom_files import SHARED, image, noise, save, uid
from tests.client.scores import (
    diagnosed,
    enhanced,
    faults,
    given,
    hippocampus,
    labels,
    numbered,
    outlined,
    radiograph,
    ultrasound,
    volume,
)

Sources = Callable[[Path], tuple[Path, ...]]


def loop(folder: Path) -> tuple[Path, ...]:
    return ultrasound(folder, frames=4)


def slices(folder: Path) -> tuple[Path, ...]:
    """Write a volume whose slices are a series each, as some cines come."""
    found = volume(folder)
    for number, path in enumerate(found):
        one = dcmread(path)
        one.SeriesInstanceUID, one.SeriesDescription = uid(f"slice {number}"), f"cine {number}"
        one.save_as(path)
    return found


SOURCES: dict[str, Sources] = {
    "a CT series in no order": volume,
    "slices that are a series each": slices,
    "an enhanced multi-frame CT": enhanced,
    "an ultrasound image": ultrasound,
    "an ultrasound loop": loop,
    "a radiograph": radiograph,
}


def the(results: tuple[Result, ...], kind: Kind) -> Path:
    (found,) = [result.path for result in results if result.kind is kind]
    return found


def kinds(results: tuple[Result, ...]) -> set[Kind]:
    return {result.kind for result in results}


def drawn(segmentation: Dataset, score: Score) -> NDArray[np.uint8]:
    """Return what a SEG says, frame by frame on its sources, read without our own code."""
    assert score.outlines is not None
    found = np.zeros_like(score.outlines.labels)
    places = {}
    position = 0
    for path in score.sources:
        header = dcmread(path, stop_before_pixels=True)
        for frame in range(int(header.get("NumberOfFrames", 1))):
            places[header.SOPInstanceUID, frame] = position
            position += 1
    pixels = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, group in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber", 1)) - 1
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert frame.any()  # empty frames are left out
        found[places[place]][frame > 0] = segment
    return found


@pytest.mark.processes
@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_outlines_become_a_seg_and_a_report_that_dciodvfy_finds_no_error_in(
    tmp_path: Path, write: Sources
) -> None:
    score = outlined(write(tmp_path / "source"))
    results = write_results(score, tmp_path / "out")
    assert kinds(results) == set(Kind)
    for kind in (Kind.SEGMENTATION, Kind.REPORT, Kind.CAPTURE):
        assert faults(the(results, kind)) == []
    segmentation = highdicom.seg.segread(the(results, Kind.SEGMENTATION))
    assert score.outlines is not None
    assert np.array_equal(drawn(segmentation, score), score.outlines.labels)


@pytest.mark.processes
@pytest.mark.parametrize("write", SOURCES.values(), ids=SOURCES)
def test_a_diagnosis_becomes_a_report_and_a_picture_that_dciodvfy_finds_no_error_in(
    tmp_path: Path, write: Sources
) -> None:
    score = diagnosed(write(tmp_path / "source"))
    results = write_results(score, tmp_path / "out")
    assert kinds(results) == set(Kind) - {Kind.SEGMENTATION}
    assert faults(the(results, Kind.REPORT)) == []
    assert faults(the(results, Kind.CAPTURE)) == []


@pytest.mark.processes
def test_all_that_was_read_is_named_and_outlines_stay_on_their_own_series(tmp_path: Path) -> None:
    score = replace(outlined(volume(tmp_path / "ct")), beside=radiograph(tmp_path / "cr"))
    results = write_results(score, tmp_path / "out")
    ours, other = [dcmread(path).SOPInstanceUID for path in score.sources], score.beside[0]
    said = dcmread(the(results, Kind.REPORT))
    assert faults(the(results, Kind.REPORT)) == []
    evidence = {
        item.ReferencedSOPInstanceUID: item.ReferencedSOPClassUID
        for study in said.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence[dcmread(other).SOPInstanceUID] == dcmread(other).SOPClassUID
    assert set(ours) < set(evidence)
    drawn_on = dcmread(the(results, Kind.SEGMENTATION)).ReferencedSeriesSequence
    assert {i.ReferencedSOPInstanceUID for s in drawn_on for i in s.ReferencedInstanceSequence} == (
        set(ours)
    )
    (alone, *_) = write_results(replace(score, beside=()), tmp_path / "out")
    assert alone.sop_instance != results[0].sop_instance  # another answer, of less


def test_every_result_says_research_and_belongs_to_the_sources_study_and_patient(
    tmp_path: Path,
) -> None:
    sources = volume(tmp_path / "source")
    header = dcmread(sources[0])
    for result in write_results(outlined(sources), tmp_path / "out"):
        if result.sop_class is None:
            continue
        dataset = dcmread(result.path)
        for name in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
            assert dataset[name].value == header[name].value
        assert dataset.SeriesInstanceUID != header.SeriesInstanceUID
        assert dataset.SeriesDescription.startswith("RESEARCH")
        assert dataset.ContentQualification == "RESEARCH"
        assert RESEARCH.encode() in result.path.read_bytes()
        assert result.path.stat().st_mode & 0o077 == 0


def test_segment_frames_lie_where_their_sources_lie(tmp_path: Path) -> None:
    score = outlined(volume(tmp_path / "source"))
    dataset = dcmread(the(write_results(score, tmp_path / "out"), Kind.SEGMENTATION))
    heights = {dcmread(p).SOPInstanceUID: dcmread(p).ImagePositionPatient[2] for p in score.sources}
    for group in dataset.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert group.PlanePositionSequence[0].ImagePositionPatient[2] == heights[source]
    found = highdicom.seg.segread(the(write_results(score, tmp_path / "out"), Kind.SEGMENTATION))
    assert found.get_volume().spacing == (2.5, 0.5, 0.7)


def test_a_volume_is_measured_in_mm3_and_its_segment_is_referenced(tmp_path: Path) -> None:
    score = outlined(volume(tmp_path / "source"), ("lesion",))
    results = write_results(score, tmp_path / "out")
    report = highdicom.sr.srread(the(results, Kind.REPORT))
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    measured, area = group.get_measurements()
    assert (area.name.meaning, area.derivation.meaning) == ("Area", "Maximum")
    assert area.value == pytest.approx(15 * 0.5 * 0.7)  # where most of it is
    assert score.outlines is not None
    voxels = np.count_nonzero(score.outlines.labels)
    assert measured.value == pytest.approx(voxels * 2.5 * 0.5 * 0.7)
    assert measured.unit.value == "mm3"
    segment = group.referenced_segment
    assert (
        segment.referenced_sop_instance_uid
        == dcmread(the(results, Kind.SEGMENTATION)).SOPInstanceUID
    )
    assert group.finding_type.value == "52988006"  # SNOMED CT, lesion


def test_images_that_are_no_volume_are_measured_frame_by_frame(tmp_path: Path) -> None:
    score = outlined(loop(tmp_path / "source"), ("lesion",))
    report = highdicom.sr.srread(the(write_results(score, tmp_path / "out"), Kind.REPORT))
    groups = report.content.get_planar_roi_measurement_groups()
    assert score.outlines is not None
    counts = np.count_nonzero(score.outlines.labels, axis=(1, 2))
    assert [g.get_measurements()[0].value for g in groups] == [n for n in counts if n]
    assert {g.get_measurements()[0].unit.value for g in groups} == {"{pixels}"}


def test_the_report_gives_the_numbers_as_the_score_has_them(tmp_path: Path) -> None:
    score = diagnosed(ultrasound(tmp_path / "source"))
    report = highdicom.sr.srread(the(write_results(score, tmp_path / "out"), Kind.REPORT))
    (group,) = report.content.get_image_measurement_groups()
    found = {
        (m.name.meaning, m.derivation.meaning if m.derivation else ""): m.value
        for m in group.get_measurements()
    }
    for quantity in score.quantities:
        assert found[quantity.meaning, ""] == quantity.value
        assert found[quantity.meaning, "Output of the network before calibration"] == quantity.raw
    first = score.quantities[0]
    assert found[first.meaning, "Lower end of the interval"] == first.low
    assert found[first.meaning, "Upper end of the interval"] == first.high
    said = {(e.name.meaning, e.value.meaning) for e in group.get_qualitative_evaluations()}
    assert ("Prediction set", "malignant") in said
    assert ("The model answers", "Yes") in said


@pytest.mark.processes
@pytest.mark.parametrize("unit", ["%", "mL", "mm[Hg]", "1", "{beats}/min"])
def test_a_number_keeps_its_unit_in_a_report_that_dciodvfy_finds_no_error_in(
    tmp_path: Path, unit: str
) -> None:
    score = numbered(ultrasound(tmp_path / "source"), unit)
    results = write_results(score, tmp_path / "out")
    assert faults(the(results, Kind.REPORT)) == []
    report = highdicom.sr.srread(the(results, Kind.REPORT))
    (group,) = report.content.get_image_measurement_groups()
    found = {
        (m.name.meaning, m.derivation.meaning if m.derivation else ""): (m.value, m.unit.value)
        for m in group.get_measurements()
    }
    assert found["predicted ef", ""] == (52.25, unit)
    assert found["predicted ef", "Lower end of the interval"] == (34.5, unit)
    assert found["predicted ef", "Upper end of the interval"] == (70.0, unit)
    held = found["Part of patients whose number the interval holds", ""]
    assert held == (0.9, "{ratio}")
    words = the(results, Kind.REPORT).read_bytes()
    shown = "" if unit == "1" else f" {unit}"
    said = f"predicted ef: 52.25{shown} (34.5{shown} to 70{shown}: holds the truth 90% of the time)"
    assert said.encode() in words
    told = json.loads(the(results, Kind.DIAGNOSTIC_REPORT).read_text())
    (quantity,) = [
        e["resource"]["valueQuantity"] for e in told["entry"] if "valueQuantity" in e["resource"]
    ]
    assert (quantity["value"], quantity["code"]) == (52.25, unit)


@pytest.mark.processes
def test_codes_of_the_configuration_name_structures_and_numbers(tmp_path: Path) -> None:
    """By SNOMED CT and LOINC in SEG, SR and FHIR; a name without one has a code of ours."""
    code = CodedStructure(value="4147007", meaning="Mass", category="abnormal")
    score = outlined(volume(tmp_path / "source"))
    assert score.outlines is not None
    given = replace(score.outlines, codes={"lesion": code})
    results = write_results(replace(score, outlines=given), tmp_path / "out")
    segments = dcmread(the(results, Kind.SEGMENTATION)).SegmentSequence
    kinds_of = [s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for s in segments]
    assert kinds_of == ["Mass", "spot"]
    report = highdicom.sr.srread(the(results, Kind.REPORT))
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert groups[0].finding_type is not None
    assert groups[0].finding_type.value == "4147007"
    assert faults(the(results, Kind.SEGMENTATION)) == faults(the(results, Kind.REPORT)) == []
    assert ("http://snomed.info/sct", "4147007") in fhir_codes(the(results, Kind.DIAGNOSTIC_REPORT))
    ejection = CodedConcept(value="10230-1", scheme="LN", meaning="LVEF")
    number = numbered(ultrasound(tmp_path / "echo"))
    coded = replace(number, quantities=(replace(number.quantities[0], code=ejection),))
    results = write_results(coded, tmp_path / "out")
    assert ("http://loinc.org", "10230-1") in fhir_codes(the(results, Kind.DIAGNOSTIC_REPORT))
    assert faults(the(results, Kind.REPORT)) == []


def fhir_codes(path: Path) -> set[tuple[str, str]]:
    """Return system and code of all that a Bundle's Observations say."""
    found = set()
    for entry in json.loads(path.read_text())["entry"]:
        resource = entry["resource"]
        said = [resource.get("code", {})]
        said += [part.get("valueCodeableConcept", {}) for part in resource.get("component", [])]
        found |= {(c["system"], c["code"]) for one in said for c in one.get("coding", [])}
    return found


def test_a_survival_curve_and_an_abstention_are_said(tmp_path: Path) -> None:
    days = (365, 730)
    score = replace(
        diagnosed(radiograph(tmp_path / "source")),
        kind="prognosis",
        heatmap=None,
        quantities=tuple(
            Quantity(
                label=f"{day} days",
                meaning=f"probability of no event until {day} days",
                value=1 - day / 2000,
                raw=1 - day / 1000,
            )
            for day in days
        ),
        prediction_set=None,
        coverage=None,
        abstained="unlike the images of the calibration",
    )
    results = write_results(score, tmp_path / "out")
    assert kinds(results) == {Kind.REPORT, Kind.DIAGNOSTIC_REPORT}
    text = the(results, Kind.REPORT).read_bytes()
    assert b"probability of no event until 730 days" in text
    assert b"gives no answer: unlike the images" in text


def test_the_same_score_gives_the_same_files_whenever_it_is_written(tmp_path: Path) -> None:
    score = outlined(loop(tmp_path / "source"))
    made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = write_results(score, tmp_path / "one", made)
    again = write_results(score, tmp_path / "two", made)
    later = write_results(score, tmp_path / "three", made + timedelta(days=1))
    for one, two, three in zip(first, again, later, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
        assert one.path.name == three.path.name
        assert one.sop_instance == three.sop_instance
    kept = the(write_results(score, tmp_path / "one", made + timedelta(days=1)), Kind.REPORT)
    assert dcmread(kept).ContentDate == "20260102"


@pytest.mark.parametrize(
    "change",
    [
        {"unlike_training": 0.5},
        {"coverage": 0.8},
        {"abstained": "no"},
        {"kind": "prognosis"},
        {"prediction_set": ()},
        {"quantities": ()},
        {"heatmap": None},
    ],
    ids=str,
)
def test_a_score_that_says_something_else_is_another_instance(
    tmp_path: Path, change: dict[str, object]
) -> None:
    score = diagnosed(radiograph(tmp_path / "source"))
    other = replace(score, **change)  # type: ignore[arg-type]
    one = write_results(score, tmp_path / "one")[0]
    two = write_results(other, tmp_path / "two")[0]
    assert one.sop_instance != two.sop_instance
    assert one.series == two.series


@pytest.mark.processes
def test_nothing_outlined_is_no_seg_and_a_volume_of_nothing(tmp_path: Path) -> None:
    score = outlined(volume(tmp_path / "source"), ("lesion",))
    empty = Outlines(labels=np.zeros((6, 12, 16), np.uint8), structures=("lesion",))
    results = write_results(replace(score, outlines=empty), tmp_path / "out")
    assert kinds(results) == {Kind.REPORT, Kind.DIAGNOSTIC_REPORT}
    assert faults(the(results, Kind.REPORT)) == []
    report = highdicom.sr.srread(the(results, Kind.REPORT))
    values = [
        m.value
        for g in report.content.get_image_measurement_groups()
        for m in g.get_measurements()
        if m.unit.value == "mm3"
    ]
    assert values == [0]


@pytest.mark.processes
def test_names_in_any_script_are_taken_over(tmp_path: Path) -> None:
    one = given(image(noise(40, 50)), dcmread(radiograph(tmp_path)[0]).SOPClassUID, "CR")
    one.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    one.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    path = save(tmp_path / "source" / "cr.dcm", one)
    results = write_results(diagnosed([path]), tmp_path / "out")
    for kind in (Kind.REPORT, Kind.CAPTURE):
        dataset = dcmread(the(results, kind))
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
        assert faults(the(results, kind)) == []
    assert "bösartig" in str(dcmread(the(results, Kind.REPORT)))


@pytest.mark.processes
def test_values_that_break_their_type_are_mended_or_emptied(tmp_path: Path) -> None:
    one = dcmread(radiograph(tmp_path)[0])
    one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # so that the file names no types
    one.add_new(0x00080030, "SH", "14:04:38")
    one.add_new(0x00080020, "SH", "1997.04.24")
    one.add_new(0x00100030, "SH", "unknown")
    one.add_new(0x00100020, "LT", "P" * 70 + "\\2")
    one.PatientSex = "W"
    del one.StudyID
    path = save(tmp_path / "source" / "cr.dcm", one)
    results = write_results(diagnosed([path]), tmp_path / "out")
    with quiet():
        dataset = dcmread(the(results, Kind.REPORT))
        patient = list(dataset.PatientID)
    assert (dataset.StudyTime, dataset.StudyDate) == ("140438", "19970424")
    assert (dataset.PatientBirthDate, dataset.PatientSex, dataset.StudyID) == ("", "", "")
    # The PACS files by it, so it stays; the error is the source's.
    assert patient == ["P" * 70, "2"]
    said = [f for f in faults(the(results, Kind.REPORT)) if "Value invalid for this VR" in f]
    assert said
    assert all("PatientID" in fault or "Patient ID" in fault for fault in said)


def test_the_picture_keeps_the_image_and_puts_the_text_around_it(tmp_path: Path) -> None:
    sources = ultrasound(tmp_path / "source")
    score = replace(outlined(sources, ("lesion",)))
    dataset = dcmread(the(write_results(score, tmp_path / "out"), Kind.CAPTURE))
    picture = dataset.pixel_array
    assert dataset.BurnedInAnnotation == "YES"
    assert BANNER == "RESEARCH - not for clinical use"
    rows = np.flatnonzero((picture == (255, 176, 0)).all(axis=2).any(axis=1))
    assert rows.size > 5  # the banner, in its colour,
    assert rows.max() < 40  # stands above the image
    times = -(-512 // 50)
    top = picture.shape[0] - 40 * times
    image_part = picture[:, :, 0]
    source = dcmread(sources[0]).pixel_array
    low, high = np.percentile(source.astype(np.float32), (0.5, 99.5))
    grey = np.clip((source - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    enlarged = grey.repeat(times, 0).repeat(times, 1)
    equal = [
        (np.abs(image_part[at : at + 40 * times].astype(int) - enlarged) < 2).mean()
        for at in range(top)
    ]
    assert max(equal) > 0.95  # all but the outline


@pytest.mark.processes
def test_a_long_reason_for_no_answer_is_shown_whole(tmp_path: Path) -> None:
    sources = radiograph(tmp_path / "source")
    heights = []
    for number in (1, 12):
        reason = "unlike the images that the model was trained on; " * number
        score = replace(diagnosed(sources), abstained=reason)
        results = write_results(score, tmp_path / "out")
        heights.append(dcmread(the(results, Kind.CAPTURE)).Rows)
        assert faults(the(results, Kind.CAPTURE)) == []
    assert heights[1] - heights[0] >= 10 * 16  # lines of text


def test_the_fhir_report_is_valid_preliminary_and_names_patient_order_and_study(
    tmp_path: Path,
) -> None:
    from fhir.resources.R4B.bundle import Bundle

    score = diagnosed(radiograph(tmp_path / "source"))
    path = the(write_results(score, tmp_path / "out"), Kind.DIAGNOSTIC_REPORT)
    bundle = Bundle.model_validate_json(path.read_bytes())
    said = json.loads(path.read_bytes())
    report, device, *observations = [entry["resource"] for entry in said["entry"]]
    assert report["status"] == "preliminary"
    assert {o["status"] for o in observations} == {"preliminary"}
    assert report["subject"]["identifier"]["value"] == "P1"
    assert report["basedOn"][0]["identifier"]["value"] == "A17"
    study = dcmread(score.sources[0]).StudyInstanceUID
    assert report["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{study}"
    assert report["conclusion"].startswith(RESEARCH)
    assert [o["valueQuantity"]["value"] for o in observations] == [
        q.value for q in score.quantities
    ]
    assert device["resourceType"] == "Device"
    references = {entry["fullUrl"] for entry in said["entry"]}
    assert {r["reference"] for r in report["result"]} <= references
    assert bundle.type == "collection"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_writes_nothing(tmp_path: Path, value: float) -> None:
    score = diagnosed(radiograph(tmp_path / "source"))
    wrong = replace(score, quantities=(replace(score.quantities[0], value=value),))
    with pytest.raises(CohortError, match="a number that is none"):
        write_results(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outlines_of_another_size_or_label_write_nothing(tmp_path: Path) -> None:
    score = outlined(volume(tmp_path / "source"))
    for wrong in (labels(5, 12, 16), labels(6, 12, 16, structures=3)):
        outlines = Outlines(labels=wrong, structures=("lesion", "spot"))
        with pytest.raises(CohortError, match="outlines"):
            write_results(replace(score, outlines=outlines), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_of_two_series_write_nothing(tmp_path: Path) -> None:
    score = diagnosed([*radiograph(tmp_path / "one"), *volume(tmp_path / "two")])
    with pytest.raises(CohortError, match="Score each series by itself"):
        write_results(score, tmp_path / "out")


def test_colours_are_packed_as_the_standard_says() -> None:
    # PS3.3 C.10.7.1.1: white is L* 100, a* and b* 0.
    assert cielab((255, 255, 255)) == pytest.approx([65535, 32896, 32896], abs=30)
    assert cielab((0, 0, 0)) == pytest.approx([0, 32896, 32896], abs=30)


@pytest.mark.processes
@pytest.mark.needs_shared_data
@pytest.mark.parametrize("structures", [("anterior", "posterior"), ("hippocampus",)])
def test_a_persons_outlines_of_a_public_mr_volume_come_back_from_the_seg(
    tmp_path: Path, structures: tuple[str, ...]
) -> None:
    score = hippocampus(structures)
    results = write_results(score, tmp_path)
    for kind in (Kind.SEGMENTATION, Kind.REPORT, Kind.CAPTURE):
        assert faults(the(results, kind)) == []
    assert score.outlines is not None
    segmentation = dcmread(the(results, Kind.SEGMENTATION))
    assert np.array_equal(drawn(segmentation, score), score.outlines.labels)
    report = highdicom.sr.srread(the(results, Kind.REPORT))
    sizes = [
        group.get_measurements()[0].value
        for group in report.content.get_volumetric_roi_measurement_groups()
    ]
    # The voxels are 1 mm3.
    numbers = range(1, len(structures) + 1)
    assert sizes == [np.count_nonzero(score.outlines.labels == number) for number in numbers]


@pytest.mark.processes
@pytest.mark.needs_shared_data
@pytest.mark.parametrize(
    "path",
    [
        "breast-us/east/BU023891A1.dcm",
        "chest-icu/ward-a/08d780ae.dcm",
        "dicom-zoo/dcm_qa_enh__6_4.dcm",
        "dicom-zoo/highdicom__dx_image.dcm",
        "dicom-zoo/pydicom-data__emri_small.dcm",
        "dicom-zoo/pydicom-data__OBXXXX1A_rle_2frame.dcm",
        "dicom-zoo/fo-dicom__mr_brucker.dcm",
        "dicom-zoo/pydicom__examples_ybr_color.dcm",
    ],
)
def test_results_of_public_files_of_many_makers_have_no_error(tmp_path: Path, path: str) -> None:
    for score in (outlined([SHARED / path]), diagnosed([SHARED / path])):
        results = write_results(score, tmp_path)
        for kind in kinds(results) - {Kind.DIAGNOSTIC_REPORT, Kind.CAPTURE}:
            assert faults(the(results, kind)) == []


def test_a_seg_that_we_wrote_is_read_as_a_mask_of_its_volume(tmp_path: Path) -> None:
    structures = ("lesion", "spot")
    for write in (volume, enhanced):
        score = outlined(write(tmp_path / write.__name__), structures)
        path = the(write_results(score, tmp_path / "out"), Kind.SEGMENTATION)
        parts = [(read_header(d), read_pixels(d)) for d in map(read_dataset, score.sources)]
        pixels, geometry = stack_slices(parts)
        slices, rows, columns = pixels.stored.shape
        numbers = {name: (number,) for number, name in enumerate(structures, 1)}
        mask = read_segmentation(path, (slices, rows, columns), geometry, numbers)
        heights = [place[2] for header, _ in parts for place in header.positions]
        assert score.outlines is not None
        assert np.array_equal(mask, score.outlines.labels[np.argsort(heights)])
