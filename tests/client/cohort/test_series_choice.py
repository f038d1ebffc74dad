"""Which images a row means: pictures of several kinds are never several items in silence."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from client.cohort.left_out import LeftOut
from client.cohort.site_cohort import SiteCohort
from client.dicom.reasons import Reason
from common.config.run_config import RunConfig
from common.platform.errors import CohortError
from tests.client.dicom_files import (
    config_of,
    image,
    load,
    noise,
    placed,
    save,
    segmentation,
    write_labels,
)
from tests.client.dicom_files import slices as volume_of

FLAT = "{images: {size: [8, 8]}}"
DEEP = "{images: {size: [8, 8, 8]}}"
MR, CT, PT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.128"
CR = "1.2.840.10008.5.1.4.1.1.1"
MG_SHOWN, MG_RAW = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMO = "1.2.840.10008.5.1.4.1.1.13.1.3"


def as_class(dataset: FileDataset, sop_class: str, modality: str, **more: object) -> FileDataset:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.Modality = modality
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def series(
    folder: Path,
    patient: str,
    name: str,
    *,
    sop_class: str = MR,
    modality: str = "MR",
    study: str = "S",
    count: int = 4,
    **more: object,
) -> str:
    """Write a series of parallel slices and return its UID."""
    found = ""
    seed = sum(map(ord, patient + name + study))
    for number, plane in enumerate(noise(count, 8, 8, seed=seed)):
        one = placed(image(plane, patient, study, name, number), (0, 0, 2.0 * number))
        as_class(one, sop_class, modality, SeriesDescription=name, **more)
        save(folder / patient / f"{study}-{name}-{number}.dcm", one)
        found = str(one.SeriesInstanceUID)
    return found


def picture(
    folder: Path,
    patient: str,
    name: str,
    *,
    sop_class: str = CR,
    modality: str = "CR",
    study: str = "S",
    seed: int = 0,
    **more: object,
) -> FileDataset:
    one = image(noise(8, 8, seed=seed + len(name)), patient, study, name)
    as_class(one, sop_class, modality, SeriesDescription=name, **more)
    save(folder / patient / f"{study}-{name}.dcm", one)
    return one


def rows(folder: Path, key: str, values: Mapping[str, str]) -> None:
    """Write a table with one row a patient, keyed by what `values` says of them."""
    write_labels(
        folder,
        [
            {
                "PatientID": patient,
                **({} if key == "PatientID" else {key: value}),
                "ill": n % 2,
                "mask": f"{patient}.png",
            }
            for n, (patient, value) in enumerate(values.items())
        ],
    )


def study_of(patient: str, study: str = "S") -> str:
    return str(image(noise(2, 2), patient, study).StudyInstanceUID)


def cohort(folder: Path, dimensions: str, config: RunConfig | None = None) -> SiteCohort:
    chosen = config or config_of(cohort=dimensions)
    return load(folder, chosen, folder.parent / "cache")


def used(found: SiteCohort) -> dict[str, int]:
    owners = [found.items.pseudonyms[p] for p in found.items.patient.tolist()]
    return {name: owners.count(name) for name in found.items.pseudonyms}


def two_patients(folder: Path, key: str) -> str:
    """One patient with a clear study, one with three series; return the FLAIR's UID."""
    series(folder, "P0", "T1")
    series(folder, "P1", "T1")
    flair = series(folder, "P1", "FLAIR")
    series(folder, "P1", "T2")
    held = {
        "PatientID": {"P0": "P0", "P1": "P1"},
        "StudyInstanceUID": {"P0": study_of("P0"), "P1": study_of("P1")},
        "AccessionNumber": {"P0": "AS", "P1": "AS"},
    }
    rows(folder, key, held[key])
    return flair


@pytest.mark.parametrize("dimensions", [FLAT, DEEP])
@pytest.mark.parametrize("key", ["PatientID", "StudyInstanceUID"])
def test_several_series_of_one_study_are_refused_with_their_names(
    tmp_path: Path, key: str, dimensions: str
) -> None:
    site = tmp_path / "s"
    two_patients(site, key)
    found = cohort(site, dimensions)
    assert list(used(found)) == ["P0"]
    told = [one for one in found.unusable if one.reason is Reason.AMBIGUOUS_SERIES]
    assert len(told) == (3 if dimensions == DEEP else 12)
    assert told[0].detail.startswith("line 3: the row fits 3 series of one study: ")
    assert all(f"{name} (MR, 4 files, " in told[0].detail for name in ("T1", "T2", "FLAIR"))


@pytest.mark.parametrize("dimensions", [FLAT, DEEP])
def test_a_row_that_names_the_series_is_always_clear(tmp_path: Path, dimensions: str) -> None:
    site = tmp_path / "s"
    flair = two_patients(site, "PatientID")
    rows(site, "SeriesInstanceUID", {"P0": str(series(site, "P0", "T1")), "P1": flair})
    found = cohort(site, dimensions)
    assert used(found) == dict.fromkeys(("P0", "P1"), 1 if dimensions == DEEP else 4)
    assert Reason.AMBIGUOUS_SERIES not in found.reasons()


def test_what_is_left_out_for_another_reason_makes_nothing_unclear(tmp_path: Path) -> None:
    site = tmp_path / "s"
    series(site, "P0", "T1")
    series(site, "P0", "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(site, "P0", "key image", count=1)
    series(site, "P0", "low dose", sop_class=CT, modality="CT")
    picture(site, "P0", "screen", sop_class="1.2.840.10008.5.1.4.1.1.7", modality="MR")
    series(site, "P0", "refused")
    rows(site, "PatientID", {"P0": "P0"})
    config = config_of(cohort="{images: {size: [8, 8, 8], modalities: [MR]}}")
    bad = [str(image(noise(2, 2), "P0", "S", "refused", n).SOPInstanceUID) for n in range(4)]
    left_out = LeftOut(images={("P0", uid): (Reason.DERIVED, "by the site") for uid in bad})
    found = load(site, config, tmp_path / "cache", left_out)
    assert used(found) == {"P0": 1}


def test_a_series_that_cannot_be_read_still_makes_its_study_unclear(tmp_path: Path) -> None:
    site = tmp_path / "s"
    series(site, "P0", "T1")
    series(site, "P0", "FLAIR")
    for path in site.glob("P0/*FLAIR*"):
        path.write_bytes(path.read_bytes()[:-60])  # pixels end too early
    rows(site, "PatientID", {"P0": "P0"})
    with pytest.raises(CohortError, match="AMBIGUOUS_SERIES"):
        cohort(site, DEEP)


def test_one_patients_files_decide_nothing_of_another(tmp_path: Path) -> None:
    """A copied Study or Series UID under another PatientID leaves the first patient as it was."""
    site = tmp_path / "s"
    series(site, "P0", "T1")
    rows(site, "StudyInstanceUID", {"P0": study_of("P0")})
    assert used(cohort(site, DEEP)) == {"P0": 1}
    for number, plane in enumerate(noise(4, 8, 8, seed=9)):
        one = placed(image(plane, "P9", "S", "FLAIR", number), (0, 0, 2.0 * number))
        as_class(one, MR, "MR", StudyInstanceUID=study_of("P0"))
        save(site / "P9" / f"{number}.dcm", one)
    assert used(cohort(site, DEEP)) == {"P0": 1}


@pytest.mark.parametrize(
    ("first", "second", "kept"), [("AX T1", "ax_t1", 2), ("AX T1", "AX FLAIR", 0)]
)
def test_studies_of_a_patient_are_several_items_only_where_they_are_alike(
    tmp_path: Path, first: str, second: str, kept: int
) -> None:
    site = tmp_path / "s"
    series(site, "P0", first, study="S1")
    series(site, "P0", second, study="S2")
    series(site, "P1", "AX T1")
    rows(site, "PatientID", {"P0": "P0", "P1": "P1"})
    assert used(cohort(site, DEEP)).get("P0", 0) == kept


def test_pictures_of_several_modalities_are_no_items_of_one_row(tmp_path: Path) -> None:
    site = tmp_path / "s"
    picture(site, "P0", "chest")
    series(site, "P0", "thorax", sop_class=CT, modality="CT")
    picture(site, "P1", "chest")
    rows(site, "StudyInstanceUID", {"P0": study_of("P0"), "P1": study_of("P1")})
    found = cohort(site, FLAT)
    assert used(found) == {"P1": 1}
    assert "images of 2 modalities" in found.unusable[0].detail
    only = config_of(cohort="{images: {size: [8, 8], modalities: [CR]}}")
    assert used(cohort(site, FLAT, only)) == {"P0": 1, "P1": 1}


def test_views_and_x_rays_of_several_days_stay_items_of_their_patient(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for view in ("LCC", "LMLO", "RCC", "RMLO"):
        picture(site, "P0", view, sop_class=MG_SHOWN, modality="MG")
    for day in range(3):
        picture(site, "P1", f"chest{day}", study=f"S{day}")
    picture(site, "P1", "screen", study="S0", sop_class="1.2.840.10008.5.1.4.1.1.7", seed=50)
    rows(site, "PatientID", {"P0": "P0", "P1": "P1"})
    found = cohort(site, FLAT)
    assert used(found) == {"P0": 4, "P1": 3}
    assert [(p.reason, p.what) for p in found.unusable] == [(Reason.DERIVED, "P1/S0-screen.dcm")]


def test_tomosynthesis_beside_mammograms_is_another_kind(tmp_path: Path) -> None:
    site = tmp_path / "s"
    picture(site, "P0", "LCC", sop_class=MG_SHOWN, modality="MG")
    made = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]
    picture(site, "P0", "LCC made", sop_class=MG_SHOWN, modality="MG", ImageType=made)
    picture(site, "P1", "LCC", sop_class=MG_SHOWN, modality="MG")
    rows(site, "PatientID", {"P0": "P0", "P1": "P1"})
    assert used(cohort(site, FLAT)) == {"P1": 1}


def test_one_outline_as_png_is_no_mask_of_two_pictures(tmp_path: Path) -> None:
    site = tmp_path / "s"
    picture(site, "P0", "a")
    picture(site, "P0", "b")
    picture(site, "P1", "a")
    rows(site, "PatientID", {"P0": "P0", "P1": "P1"})
    for name in ("P0", "P1"):
        values = np.zeros((8, 8), np.uint8)
        values[2:5, 2:5] = 255
        Image.fromarray(values).save(site / f"{name}.png")
    task = "{kind: segmentation, structures: {lesion: [255]}}"
    found = cohort(site, FLAT, config_of(task, "{images: {size: [16, 16]}}", "unet"))
    assert used(found) == {"P1": 1}


def test_outlines_that_name_no_picture_are_refused_where_a_row_has_several(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for patient, names in (("P0", "ab"), ("P1", "a")):
        pictures = [picture(site, patient, name) for name in names]
        mask = np.zeros((1, 8, 8), np.uint8)
        mask[0, 2:5, 2:5] = 1
        outline = segmentation({1: mask}, pictures)
        outline.StudyInstanceUID = pictures[0].StudyInstanceUID
        for groups in outline.PerFrameFunctionalGroupsSequence:
            del groups.DerivationImageSequence
        save(site / f"{patient}.seg.dcm", outline)
    write_labels(site, [{"PatientID": p, "mask": f"{p}.seg.dcm"} for p in ("P0", "P1")])
    task = "{kind: segmentation, structures: {lesion: [1]}}"
    found = cohort(site, FLAT, config_of(task, "{images: {size: [16, 16]}}", "unet"))
    assert used(found) == {"P1": 1}
    told = [p.detail for p in found.unusable if p.reason is Reason.MASK_UNUSABLE]
    assert told == ["does not say on which of the row's images it was drawn"] * 2


@pytest.mark.parametrize("dimensions", [FLAT, DEEP])
def test_pet_in_counts_and_in_becquerel_are_never_mixed(tmp_path: Path, dimensions: str) -> None:
    site = tmp_path / "s"
    for patient, units in (("P0", "BQML"), ("P1", "CNTS"), ("P2", "GML"), ("P3", None)):
        more = {} if units is None else {"Units": units}
        series(site, patient, "pet", sop_class=PT, modality="PT", **more)
    # Both of one patient: the run's units choose.
    series(site, "P4", "ac", sop_class=PT, modality="PT", Units="BQML")
    series(site, "P4", "counts", sop_class=PT, modality="PT", Units="CNTS")
    rows(site, "PatientID", {f"P{n}": f"P{n}" for n in range(5)})
    found = cohort(site, dimensions)
    assert list(used(found)) == ["P0", "P4"]
    told = {p.detail for p in found.unusable if p.reason is Reason.WRONG_UNITS}
    assert told == {
        "Units is CNTS, the run uses BQML",
        "Units is GML, the run uses BQML",
        "Units is not said, the run uses BQML",
    }
    # SUV by lean body mass is another number under the same Units (PS3.3 C.8.9.1.1.3).
    series(site, "P5", "suv", sop_class=PT, modality="PT", Units="GML", SUVType="LBM")
    series(site, "P6", "suv", sop_class=PT, modality="PT", Units="GML", SUVType="BW")
    rows(site, "PatientID", {f"P{n}": f"P{n}" for n in range(7)})
    found = cohort(site, dimensions.replace("size:", "units: GML, size:"))
    assert "Units is GML by SUVType LBM, the run uses GML" in {p.detail for p in found.unusable}
    for units, kept in (("CNTS", ["P1", "P4"]), ("GML", ["P2", "P6"])):
        text = dimensions.replace("size:", f"units: {units}, size:")
        assert list(used(cohort(site, text))) == kept


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (MG_RAW, "MG"),
        ("1.2.840.10008.5.1.4.1.1.1.1.1", "DX"),
        ("1.2.840.10008.5.1.4.1.1.1.3.1", "IO"),
    ],
)
def test_raw_x_rays_are_left_out_unless_the_run_wants_them(
    tmp_path: Path, sop_class: str, modality: str
) -> None:
    site = tmp_path / "s"
    shown = sop_class.removesuffix(".1")
    picture(site, "P0", "raw", sop_class=sop_class, modality=modality)
    picture(site, "P0", "shown", sop_class=shown, modality=modality, seed=9)
    picture(
        site, "P1", "raw", sop_class=CR, modality=modality, PresentationIntentType="FOR PROCESSING"
    )
    picture(
        site,
        "P2",
        "raw",
        sop_class=shown,
        modality=modality,
        PresentationIntentType="FOR PROCESSING",
    )
    picture(site, "P3", "silent", modality=modality)
    rows(site, "PatientID", {f"P{n}": f"P{n}" for n in range(4)})
    found = cohort(site, FLAT)
    assert used(found) == {"P0": 1, "P3": 1}
    assert found.sources == ("P0/S-shown.dcm", "P3/S-silent.dcm")
    assert found.reasons()[Reason.WRONG_PRESENTATION] == 3
    raw = cohort(site, "{images: {size: [8, 8], presentation: for_processing}}")
    assert used(raw) == {"P0": 1, "P1": 1, "P2": 1, "P3": 1}
    assert raw.sources[0] == "P0/S-raw.dcm"


def test_a_site_with_raw_mammograms_alone_says_so(tmp_path: Path) -> None:
    site = tmp_path / "s"
    picture(site, "P0", "raw", sop_class=MG_RAW, modality="MG")
    rows(site, "PatientID", {"P0": "P0"})
    with pytest.raises(CohortError, match=r"1 x WRONG_PRESENTATION .*cohort\.images\.presentation"):
        cohort(site, FLAT)


def test_configurations_without_the_new_keys_keep_their_hash() -> None:
    plain = config_of(cohort=FLAT)
    assert "presentation" not in plain.canonical_json()
    assert "units" not in plain.canonical_json()


def test_the_choice_is_kept_with_the_cache(tmp_path: Path) -> None:
    site = tmp_path / "s"
    two_patients(site, "PatientID")
    first = cohort(site, DEEP)
    again = cohort(site, DEEP)
    assert again.unusable == first.unusable
    shutil.rmtree(site / "P1")
    series(site, "P1", "FLAIR")
    assert list(used(cohort(site, DEEP))) == ["P0", "P1"]


def test_volumes_of_one_series_are_read_as_before(tmp_path: Path) -> None:
    site = tmp_path / "s"
    for number, one in enumerate(volume_of(noise(4, 8, 8))):
        save(site / f"{number}.dcm", one)
    rows(site, "PatientID", {"P1": "P1"})
    assert used(cohort(site, DEEP)) == {"P1": 1}
