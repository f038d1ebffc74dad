"""`measure_site`: masks of a table's rows, measured on the images that they were drawn on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from client.dicom.reasons import Reason
from client.measurement.measured_table import table_text, values_of
from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import SiteMeasurements, measure_site
from client.site.cache import Cache
from tests.client.dicom_files import SHARED, write_labels
from tests.client.measurement.phantom import MASK, STEP, VALUES, beating, put_mask, put_scan, scan

CINE = MeasurePlan.model_validate(
    {
        "structures": {"lv": [1]},
        "masks": {"ed": "mask_ed", "es": "mask_es"},
        "ejection_fraction": {"structures": ["lv"], "end_diastole": "ed", "end_systole": "es"},
    }
)
LESION = MeasurePlan.model_validate({"structures": {"lesion": [1]}})


def measured(
    site: Path, plan: MeasurePlan = LESION, withdrawn: frozenset[str] = frozenset()
) -> SiteMeasurements:
    cache = Cache(site.parent / "cache")
    return measure_site(site, plan, cache, withdrawn=withdrawn)


def values(found: SiteMeasurements) -> dict[str, dict[str, float]]:
    return {row.patient: dict(values_of(row)) for row in found.rows}


def reasons(found: SiteMeasurements) -> dict[str, set[Reason]]:
    """Return by patient why something was not measured."""
    return {
        one.what: {other.reason for other in found.left_out if other.what == one.what}
        for one in found.left_out
    }


def put_nifti(path: Path, values: NDArray[np.generic]) -> None:
    """Write a scan or its mask: NIfTI's axes are x, y, z, to the right and forward."""
    affine = np.diag([-STEP, -STEP, STEP, 1.0])
    picture = nibabel.Nifti1Image(values.transpose(2, 1, 0).astype(np.uint8), affine)
    picture.set_sform(affine, code=1)
    picture.set_qform(affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(picture, path)


def test_the_phantom_measures_the_same_through_seg_and_nifti(tmp_path: Path) -> None:
    site = tmp_path / "site"
    drawn, plain = scan("drawn"), scan("plain")
    put_scan(site / "drawn", drawn)
    put_scan(site / "plain", plain)
    put_mask(site / "drawn.seg.dcm", {1: MASK}, drawn)
    put_nifti(site / "plain.nii.gz", MASK)
    write_labels(
        site,
        [
            {"PatientID": "drawn", "mask": "drawn.seg.dcm"},
            {"PatientID": "plain", "mask": "plain.nii.gz"},
        ],
    )
    found = measured(site)
    assert found.left_out == ()
    both = values(found)
    assert both["drawn"] == both["plain"]
    assert both["drawn"]["lesion_volume_mm3"] == 592
    assert both["drawn"]["lesion_surface_mm2"] == pytest.approx(388, rel=0.01)
    assert both["drawn"]["lesion_mean"] == pytest.approx(2.15, rel=0.01)
    assert {one.reason for one in found.unusable} == {Reason.MASK_AT_BORDER}


@pytest.mark.needs_shared_data
@pytest.mark.slow
def test_ejection_fractions_are_the_tables_of_every_patient(tmp_path: Path) -> None:
    """Three ways to tell phases: trigger times, temporal positions, one series a slice."""
    plan = MeasurePlan.model_validate(
        {
            "structures": {"rv": [1], "lv": [3]},
            "masks": CINE.masks,
            "ejection_fraction": {
                "structures": ["lv", "rv"],
                "end_diastole": "ed",
                "end_systole": "es",
            },
            "intensities": False,
        }
    )
    apart: dict[str, list[float]] = {"lv": [], "rv": []}
    for site in sorted((SHARED / "cardiac-cine").iterdir()):
        found = measure_site(site, plan, Cache(tmp_path / site.name))
        for row in found.rows:
            told = found.labels.rows[row.row]
            apart["lv"].append(abs(row.fractions["lv"] - float(told["ef"])))
            apart["rv"].append(abs(row.fractions["rv"] - float(told["rv_ef"])))
    assert [len(one) for one in apart.values()] == [65, 65]
    assert max(*apart["lv"], *apart["rv"]) <= 0.1


def test_each_phase_is_measured_on_its_own_pictures(tmp_path: Path) -> None:
    site = tmp_path / "site"
    beating(site, "A")
    write_labels(site, [{"PatientID": "A", "mask_ed": "A-ed.dcm", "mask_es": "A-es.dcm"}])
    found = measured(site, CINE)
    assert found.left_out == ()
    (told,) = values(found).values()
    assert told["ed_lv_maximum"] == 6
    assert told["es_lv_maximum"] == 12
    volumes = told["ed_lv_volume_mm3"], told["es_lv_volume_mm3"]
    expected = 100 * (volumes[0] - volumes[1]) / volumes[0]
    assert told["lv_ejection_fraction_percent"] == expected


def test_without_two_usable_phases_there_is_no_fraction_and_the_rest_is_measured(
    tmp_path: Path,
) -> None:
    site = tmp_path / "site"
    for patient in ("one", "same", "swapped", "lost", "good"):
        beating(site, patient)
    write_labels(
        site,
        [
            {"PatientID": "one", "mask_ed": "one-ed.dcm", "mask_es": ""},
            {"PatientID": "same", "mask_ed": "same-ed.dcm", "mask_es": "same-ed.dcm"},
            {"PatientID": "swapped", "mask_ed": "swapped-es.dcm", "mask_es": "swapped-ed.dcm"},
            {"PatientID": "lost", "mask_ed": "nowhere.dcm", "mask_es": "lost-es.dcm"},
            {"PatientID": "good", "mask_ed": "good-ed.dcm", "mask_es": "good-es.dcm"},
        ],
    )
    found = measured(site, CINE)
    assert reasons(found) == {
        "patient one": {Reason.MASK_MISSING, Reason.PHASE_MISSING},
        "patient same": {Reason.PHASE_MISSING},
        "patient swapped": {Reason.PHASES_SWAPPED},
        "patient lost": {Reason.MASK_MISSING, Reason.PHASE_MISSING},
    }
    told = values(found)
    assert set(told) == {"one", "same", "swapped", "lost", "good"}
    assert {p for p in told if "lv_ejection_fraction_percent" in told[p]} == {"good"}
    assert "ed_lv_volume_mm3" in told["one"]
    assert "es_lv_volume_mm3" in told["lost"]


def test_structures_that_overlap_are_measured_whole(tmp_path: Path) -> None:
    site, drawn = tmp_path / "site", scan("A")
    put_scan(site / "A", drawn)
    inner = MASK.copy()
    inner[:, 1:] = False
    put_mask(site / "a.dcm", {1: MASK, 2: inner}, drawn)
    write_labels(site, [{"PatientID": "A", "mask": "a.dcm"}])
    plan = MeasurePlan.model_validate(
        {"structures": {"organ": [1], "tumour": [2], "both": [1, 2], "other": [7]}}
    )
    (told,) = values(measured(site, plan)).values()
    sizes = {name: told[f"{name}_volume_mm3"] for name in plan.structures}
    small = float(inner.sum()) * STEP**3
    assert sizes == {"organ": 592, "tumour": small, "both": 592, "other": 0}


def test_what_cannot_be_measured_has_a_reason_and_stops_nobody(tmp_path: Path) -> None:
    site = tmp_path / "site"
    rows = []
    for patient in ("uneven", "empty", "alone", "twice", "cut", "good", "gone"):
        drawn = scan(patient)
        if patient == "uneven":
            drawn[-1].ImagePositionPatient = [0.0, 0.0, 7.0]
        if patient == "cut":
            drawn = drawn[:2]
        if patient != "alone":
            put_scan(site / patient, drawn)
        if patient == "twice":
            put_scan(site / patient, scan(patient, VALUES * 2, series="again"))
        if patient == "twice":
            put_nifti(site / f"{patient}.nii.gz", MASK)
            rows.append({"PatientID": patient, "mask": f"{patient}.nii.gz"})
            continue
        whole = MASK & (patient != "empty")
        held = {1: whole, 2: MASK} if patient == "empty" else {1: whole}
        put_mask(site / f"{patient}.seg.dcm", held, scan(patient))
        rows.append({"PatientID": patient, "mask": f"{patient}.seg.dcm"})
    write_labels(site, rows)
    found = measured(site, withdrawn=frozenset({"gone"}))
    assert reasons(found) == {
        "patient uneven": {Reason.NONUNIFORM_SPACING},
        "patient alone": {Reason.NO_IMAGE},
        "patient twice": {Reason.AMBIGUOUS_SERIES},
        "patient cut": {Reason.MASK_UNUSABLE},
    }
    (twice,) = [one for one in found.left_out if one.reason is Reason.AMBIGUOUS_SERIES]
    assert "1 and again" in twice.detail
    told = values(found)
    assert told["empty"] == {"lesion_volume_mm3": 0}
    assert told["good"]["lesion_volume_mm3"] == 592
    assert set(told) == {"empty", "good"}
    assert Counter(one.reason for one in found.unusable)[Reason.MASK_EMPTY] == 1


def test_volumes_in_files_are_measured_like_dicom(tmp_path: Path) -> None:
    site = tmp_path / "site"
    put_nifti(site / "A.nii.gz", VALUES)
    put_nifti(site / "A-mask.nii.gz", MASK)
    put_nifti(site / "B.nii.gz", VALUES)
    put_nifti(site / "B-mask.nii.gz", np.pad(MASK, 1))
    rows = [{"PatientID": p, "image": f"{p}.nii.gz", "mask": f"{p}-mask.nii.gz"} for p in "ABC"]
    write_labels(site, rows)
    found = measured(site, LESION.model_copy(update={"format": "files"}))
    (told,) = values(found).values()
    assert told["lesion_volume_mm3"] == 592
    assert told["lesion_surface_mm2"] == pytest.approx(388, rel=0.01)
    assert told["lesion_mean"] == pytest.approx(2.15, rel=0.01)
    assert reasons(found)["patient B"] == {Reason.MASK_UNUSABLE}
    assert reasons(found)["line 4"] == {Reason.NO_IMAGE}


def test_one_mask_without_a_name_is_nobody_elses(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for patient in ("A", "B"):
        put_scan(site / patient, scan(patient))
    put_nifti(site / "mask.nii.gz", MASK)
    write_labels(site, [{"PatientID": one, "mask": "mask.nii.gz"} for one in ("A", "B")])
    found = measured(site)
    assert found.rows == ()
    assert reasons(found) == {
        "patient A": {Reason.MASK_UNUSABLE},
        "patient B": {Reason.MASK_UNUSABLE},
    }


def test_the_table_has_every_row_and_the_same_columns_whatever_was_measured(tmp_path: Path) -> None:
    site, drawn = tmp_path / "site", scan("A")
    put_scan(site / "A", drawn)
    put_mask(site / "a.dcm", {1: MASK}, drawn)
    rows = [{"PatientID": "A", "mask": "a.dcm", "ill": 1}, {"PatientID": "B", "mask": "", "ill": 0}]
    write_labels(site, rows)
    text = table_text(measured(site), LESION)
    header, first, second = (line.split(",") for line in text.splitlines())
    assert header[:3] == ["PatientID", "mask", "ill"]
    assert len(header) == len(first) == len(second) == 3 + 33
    assert first[3] == "592"
    assert second[3:] == [""] * 33
