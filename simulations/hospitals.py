"""Synthetic hospitals: folders of real DICOM and a labels.csv, all patients invented.

The truth behind the tables, so that tests can look for it: malignancy comes with larger,
lobed lesions; C-reactive protein rises with malignancy; the hazard of death is
BASELINE_PER_YEAR x exp(HAZARD_LESION x radius/0.05 + HAZARD_AGE x (age - 60)/10
+ HAZARD_CRP x (log1p(crp) - 2)), followed for 5 years at most.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simulations.dicom_writer import (
    Study,
    TransferSyntax,
    write_ct,
    write_mask,
    write_segmentation,
    write_xray,
)
from simulations.phantoms import Lesion, Scanner, body, chest, scan

BASELINE_PER_YEAR = 0.10
HAZARD_LESION = 0.5  # log hazard ratio per 0.05 of lesion radius
HAZARD_AGE = 0.4  # per ten years
HAZARD_CRP = 0.3  # per unit of log1p(crp)
FOLLOW_UP_YEARS = 5.0


@dataclass(frozen=True, kw_only=True)
class HospitalSpec:
    """One hospital: how many patients, how ill, on which machine."""

    name: str
    patients: int
    prevalence: float  # part of patients whose lesion is malignant
    scanner: Scanner
    transfer_syntax: TransferSyntax
    monochrome1: bool = False  # stored inverted, as many X-ray machines do
    images: tuple[int, int] = (1, 3)  # fewest and most images of a patient
    missing: float = 0.15  # part of laboratory values that were never taken


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """Several hospitals that see the same disease."""

    modality: Literal["xray", "ct"]
    hospitals: tuple[HospitalSpec, ...]
    size: int = 96  # rows and columns
    slices: int = 16  # of a CT series


@dataclass(frozen=True, kw_only=True)
class Patient:
    """An invented patient."""

    identifier: str
    malignant: bool
    lesions: tuple[Lesion, ...]
    age: float
    sex: Literal["f", "m"]
    crp: float | None
    ldh: float | None
    time_days: float
    event: bool


def demo_cohort(modality: Literal["xray", "ct"], patients: int) -> CohortSpec:
    """Return four hospitals that differ in size, case mix, machine and file format."""
    parts = (0.4, 0.3, 0.18, 0.12)
    rates = (0.35, 0.5, 0.25, 0.6)
    scanners = (
        Scanner(),
        Scanner(gain=0.8, offset=0.1, noise=0.05),
        Scanner(gamma=1.4, blur=1),
        Scanner(gamma=0.75, noise=0.06),
    )
    syntaxes: tuple[TransferSyntax, ...] = ("explicit", "jpeg-ls", "rle", "implicit")
    names = ("north", "south", "east", "west")
    hospitals = tuple(
        HospitalSpec(
            name=name, patients=max(10, round(part * patients)), prevalence=rate, scanner=scanner,
            transfer_syntax=syntax, monochrome1=name == "south" and modality == "xray",
        )
        for name, part, rate, scanner, syntax in zip(
            names, parts, rates, scanners, syntaxes, strict=True
        )
    )  # fmt: skip
    return CohortSpec(modality=modality, hospitals=hospitals)


def write_hospitals(folder: Path, spec: CohortSpec, seed: int) -> tuple[Path, ...]:
    """Write every hospital below folder; the same seed gives the same bytes."""
    return tuple(write_hospital(folder, spec, hospital, seed) for hospital in spec.hospitals)


def write_hospital(folder: Path, spec: CohortSpec, hospital: HospitalSpec, seed: int) -> Path:
    """Write one hospital: DICOM files, masks, labels.csv last; return its folder."""
    site = folder / hospital.name
    (site / "masks").mkdir(parents=True, exist_ok=True)
    rows = [
        row
        for number in range(hospital.patients)
        for row in _write_patient(site, spec, hospital, _rng(seed, hospital.name, number))
    ]
    with (site / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return site


def _rng(*parts: str | int) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def invent(hospital: HospitalSpec, rng: np.random.Generator) -> Patient:
    """Draw one patient from the hospital's case mix."""
    malignant = bool(rng.random() < hospital.prevalence)
    radius = float(np.clip(rng.normal(0.075 if malignant else 0.06, 0.015), 0.03, 0.13))
    lesion = Lesion(
        row=rng.uniform(0.3, 0.6), column=rng.choice([0.3, 0.7]) + rng.uniform(-0.06, 0.06),
        depth=rng.uniform(0.3, 0.7), radius=radius,
        irregularity=float(np.clip(rng.normal(0.85 if malignant else 0.2, 0.3), 0, 1.4)),
        contrast=rng.uniform(0.18, 0.3),
    )  # fmt: skip
    age = float(np.clip(rng.normal(64 if malignant else 58, 11), 25, 90))
    crp = float(np.expm1(max(0.05, rng.normal(2.4 if malignant else 1.7, 0.7))))
    ldh = float(rng.normal(260 if malignant else 220, 45))
    log_hazard = (
        HAZARD_LESION * radius / 0.05
        + HAZARD_AGE * (age - 60) / 10
        + HAZARD_CRP * (np.log1p(crp) - 2)
    )
    death = rng.exponential(1 / (BASELINE_PER_YEAR * np.exp(log_hazard)))
    leaves = min(FOLLOW_UP_YEARS, rng.uniform(0.5, 8.0))
    return Patient(
        identifier=f"SIM{rng.integers(16**8):08X}", malignant=malignant, lesions=(lesion,),
        age=round(age), sex="f" if rng.random() < 0.5 else "m",
        crp=None if rng.random() < hospital.missing else round(crp, 1),
        ldh=None if rng.random() < hospital.missing else round(ldh),
        time_days=float(np.ceil(365.25 * min(death, leaves))), event=bool(death <= leaves),
    )  # fmt: skip


def _write_patient(
    site: Path, spec: CohortSpec, hospital: HospitalSpec, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Write the patient's studies and return their rows of labels.csv."""
    patient = invent(hospital, rng)
    fewest, most = hospital.images
    rows = []
    for number in range(int(rng.integers(fewest, most + 1))):
        study = Study(
            patient=patient.identifier, number=number, age=int(patient.age), sex=patient.sex,
            hospital=hospital.name, transfer_syntax=hospital.transfer_syntax,
        )  # fmt: skip
        mask = _write_study(site, spec, hospital, patient, study, rng)
        rows.append(_row(patient, study, mask))
    return rows


def _write_study(
    site: Path, spec: CohortSpec, hospital: HospitalSpec, patient: Patient, study: Study,
    rng: np.random.Generator,
) -> str:  # fmt: skip
    """Write one study's pictures and mask; return the mask's path below the site."""
    if spec.modality == "xray":
        picture, mask = chest(spec.size, patient.lesions, rng)
        write_xray(
            site / f"{study.name}.dcm", scan(picture, hospital.scanner, rng), study,
            inverted=hospital.monochrome1,
        )  # fmt: skip
        path = f"masks/{study.name}.png"
        write_mask(site / path, mask)
        return path
    shape = (spec.slices, spec.size, spec.size)
    volume, mask = body(shape, patient.lesions, rng)
    write_ct(site / study.name, scan(volume, hospital.scanner, rng), study)
    path = f"masks/{study.name}.dcm"
    write_segmentation(site / path, mask, study)
    return path


def _row(patient: Patient, study: Study, mask: str) -> dict[str, str]:
    """Return one row of labels.csv; an empty cell is a value that was never taken."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    (lesion,) = patient.lesions
    stage = ("benign", "early", "late")[0 if not patient.malignant else 1 + (lesion.radius > 0.075)]
    return {
        "PatientID": patient.identifier, "StudyInstanceUID": study.study_uid,
        "SeriesInstanceUID": study.series_uid, "AccessionNumber": study.accession,
        "malignant": str(int(patient.malignant)), "finding": stage,
        "large": str(int(lesion.radius > 0.07)), "lobed": str(int(lesion.irregularity > 0.5)),
        "age": cell(patient.age), "sex": patient.sex, "crp": cell(patient.crp),
        "ldh": cell(patient.ldh), "time_days": cell(patient.time_days),
        "event": str(int(patient.event)), "mask": mask,
    }  # fmt: skip
