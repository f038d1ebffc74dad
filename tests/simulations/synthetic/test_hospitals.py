"""Synthetic hospitals are whole: files, tables and masks fit together, and repeat by seed."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from client.cohort.loading import load_cohort
from client.cohort.site_cohort import SiteCohort
from client.site.cache import Cache
from common.config.run_config import parse_config
from common.platform.errors import ConfigurationError
from common.tasks import task_of
from simulations.synthetic.hospitals import (
    CohortSpec,
    HospitalSpec,
    Scanner,
    demo_cohort,
    patients_of,
    write_hospital,
    write_hospitals,
)

Modality = Literal["xray", "ct"]


def small(modality: Modality) -> CohortSpec:
    """Return the four hospitals of the demo with small pictures."""
    return replace(demo_cohort(modality, 40), image_size=48, slices=6)


@pytest.fixture(scope="module")
def xray(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_hospitals(tmp_path_factory.mktemp("xray"), small("xray"), 0)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return write_hospitals(tmp_path_factory.mktemp("ct"), small("ct"), 0)


def table(site: Path) -> list[dict[str, str]]:
    """Return the rows of labels.csv."""
    with (site / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(site: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below the site."""
    return {
        path.relative_to(site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("modality", ["xray", "ct"])
def test_the_same_seed_gives_the_same_bytes_in_any_order(
    tmp_path: Path, modality: Modality, request: pytest.FixtureRequest
) -> None:
    before: tuple[Path, ...] = request.getfixturevalue(modality)
    spec = small(modality)
    for hospital, site in reversed(list(zip(spec.hospitals, before, strict=True))):
        assert digests(write_hospital(tmp_path, spec, hospital, 0)) == digests(site)


def test_another_seed_gives_other_patients(tmp_path: Path, xray: tuple[Path, ...]) -> None:
    spec = small("xray")
    other = write_hospital(tmp_path, spec, spec.hospitals[0], 1)
    assert {r["PatientID"] for r in table(other)}.isdisjoint(r["PatientID"] for r in table(xray[0]))
    assert {r["StudyInstanceUID"] for r in table(other)}.isdisjoint(
        r["StudyInstanceUID"] for r in table(xray[0])
    )


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is what is watched
    spec = small("xray")
    write_hospital(tmp_path, spec, spec.hospitals[2], 0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_hospitals_share_no_patient_also_when_modalities_share_a_seed() -> None:
    specs = demo_cohort("xray", 2000), demo_cohort("ct", 2000)
    everybody = [p.identifier for s in specs for h in s.hospitals for p in patients_of(s, h, 0)]
    assert len(everybody) == len(set(everybody)) == 4000


@pytest.mark.parametrize("modality", ["xray", "ct"])
def test_the_table_and_the_files_name_the_same_studies(
    modality: Modality, request: pytest.FixtureRequest
) -> None:
    instances: set[str] = set()
    spec = small(modality)
    sites: tuple[Path, ...] = request.getfixturevalue(modality)
    for hospital, site in zip(spec.hospitals, sites, strict=True):
        keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")
        named = {tuple(row[k] for k in keys) for row in table(site)}
        files = [p for p in site.rglob("*.dcm") if p.parent.name != "masks"]
        headers = [dcmread(p, stop_before_pixels=True) for p in files]
        assert {tuple(h[k].value for k in keys) for h in headers} == named
        assert {h.Manufacturer for h in headers} == {hospital.manufacturer}
        assert all((site / row["mask"]).is_file() for row in table(site))
        assert len(files) == len(named) * (spec.slices if modality == "ct" else 1)
        instances |= {h.SOPInstanceUID for h in headers}
    total = sum(len([p for p in s.rglob("*.dcm") if p.parent.name != "masks"]) for s in sites)
    assert len(instances) == total


def test_patients_have_as_many_images_as_the_hospital_says(xray: tuple[Path, ...]) -> None:
    for hospital, site in zip(small("xray").hospitals, xray, strict=True):
        images: dict[str, int] = defaultdict(int)
        for row in table(site):
            images[row["PatientID"]] += 1
        fewest, most = hospital.images_per_patient
        assert len(images) == hospital.patients
        assert fewest <= min(images.values()) <= max(images.values()) <= most
        assert (len(set(images.values())) > 1) == (fewest < most)


def test_a_patient_has_one_truth_in_all_rows(xray: tuple[Path, ...]) -> None:
    per_study = {"StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "mask"}
    for site in xray:
        facts = defaultdict(set)
        for row in table(site):
            facts[row["PatientID"]].add(tuple(v for k, v in row.items() if k not in per_study))
        assert all(len(found) == 1 for found in facts.values())


def test_the_table_tells_what_was_measured_and_nothing_else(xray: tuple[Path, ...]) -> None:
    spec = small("xray")
    rows = {row["PatientID"]: row for row in table(xray[0])}
    for patient in patients_of(spec, spec.hospitals[0], 0):
        row = rows[patient.identifier]
        for name in ("crp", "ldh", "haemoglobin"):
            assert (row[name] != "") == (name in patient.measured)
        if "crp" in patient.measured:
            assert float(row["crp"]) == pytest.approx(patient.truth.crp, abs=0.05)
        assert row["finding"] == patient.finding
        assert row["malignant"] == str(int(patient.finding == "malignant"))
        assert (float(row["time_days"]), row["event"]) == (
            patient.time_days,
            str(int(patient.event)),
        )
        assert row["finding"] != "normal" or (row["large"], row["lobed"]) == ("0", "0")


def test_masks_lie_on_bright_lesions_of_xrays_stored_either_way(xray: tuple[Path, ...]) -> None:
    interpretations = set()
    for site in xray:
        contrast = []
        for row in table(site):
            with Image.open(site / row["mask"]) as picture:
                mask = np.asarray(picture) > 0
            assert mask.any() == (row["finding"] != "normal")
            dataset = dcmread(site / f"{Path(row['mask']).stem}.dcm")
            interpretations.add(dataset.PhotometricInterpretation)
            bright = dataset.pixel_array.astype(float)
            if dataset.PhotometricInterpretation == "MONOCHROME1":
                bright = bright.max() - bright
            if mask.any():
                contrast.append(bright[mask].mean() - bright[around(mask)].mean())
        assert np.mean(contrast) > 80  # of 4095
        assert np.mean(np.array(contrast) > 0) > 0.8
    assert interpretations == {"MONOCHROME1", "MONOCHROME2"}


def around(mask: np.ndarray) -> np.ndarray:
    """Return the pixels that are near the mask but not in it."""
    wide = mask.copy()
    for axis in (0, 1):
        wide |= np.roll(wide, 3, axis) | np.roll(wide, -3, axis)
    return wide & ~mask


def load(site: Path, text: str, cache: Path) -> SiteCohort:
    """Read a site as a hospital's daemon does."""
    config = parse_config(f"name: test\n{text}\ntraining: {{rounds: 1}}\nprivacy: none\n")
    return load_cohort(site, config, task_of(config.task), Cache(cache))


XRAY = """
task: {kind: segmentation}
cohort: {images: {size: [48, 48]}}
model: {network: unet}
"""
CT = """
task: {kind: segmentation}
cohort: {images: {size: [8, 48, 48], fit: stretch}}
model: {network: unet}
"""
SURVIVAL = """
task: {kind: prognosis, time: time_days, event: event, unit: days, intervals: [200, 600, 1800]}
cohort:
  table:
    numbers: [{column: age}, {column: crp, transform: log}, {column: ldh}, {column: haemoglobin}]
    categories: [{column: sex, values: [f, m]}]
model: {network: table}
"""


def test_every_xray_site_is_read_without_a_complaint(
    tmp_path: Path, xray: tuple[Path, ...]
) -> None:
    for hospital, site in zip(small("xray").hospitals, xray, strict=True):
        cohort = load(site, XRAY, tmp_path)
        assert cohort.unusable == ()
        assert len(cohort.items) == hospital.patients


def test_every_ct_site_is_read_as_volumes_with_their_masks(
    tmp_path: Path, ct: tuple[Path, ...]
) -> None:
    for hospital, site in zip(small("ct").hospitals, ct, strict=True):
        cohort = load(site, CT, tmp_path)
        assert cohort.unusable == ()
        assert len(cohort.items) == hospital.patients
        inside = cohort.items.image[:, 0][cohort.items.target > 0]
        assert inside.numel() > 100


def test_the_table_alone_is_a_survival_cohort(tmp_path: Path, ct: tuple[Path, ...]) -> None:
    cohort = load(ct[0], SURVIVAL, tmp_path)
    assert cohort.unusable == ()
    assert len(cohort.items) == small("ct").hospitals[0].patients


def test_hospitals_of_the_demo_are_unlike() -> None:
    for modality in ("xray", "ct"):
        hospitals = demo_cohort(modality, 400).hospitals
        for field in ("name", "patients", "prevalence", "scanner", "transfer_syntax"):
            assert len({getattr(h, field) for h in hospitals}) == 4, field
        assert sum(h.patients for h in hospitals) == 400


def test_what_cannot_be_written_is_refused_by_name() -> None:
    one = HospitalSpec(
        name="a", patients=3, prevalence=0.5, scanner=Scanner(), transfer_syntax="explicit"
    )
    with pytest.raises(ConfigurationError, match="each needs a name of its own"):
        CohortSpec(modality="xray", hospitals=(one, one))
    with pytest.raises(ConfigurationError, match="image_size=8"):
        CohortSpec(modality="xray", hospitals=(one,), image_size=8)
    with pytest.raises(ConfigurationError, match="images_per_patient="):
        replace(one, images_per_patient=(2, 1))
    with pytest.raises(ConfigurationError, match=r"prevalence=1\.5"):
        replace(one, prevalence=1.5)
    with pytest.raises(ConfigurationError, match="patients=0"):
        replace(one, patients=0)
