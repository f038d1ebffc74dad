"""Invented hospitals: folders of real DICOM and a labels.csv.

The truth behind the tables is in simulations.synthetic.patients. Public: CohortSpec, HospitalSpec,
Scanner, demo_cohort, write_hospitals, write_hospital, patients_of.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from common.platform.errors import ConfigurationError
from simulations.synthetic.dicom_writer import (
    InventedStudy,
    Machine,
    TransferSyntax,
    pixel_mm,
    write_ct,
    write_xray,
)
from simulations.synthetic.patients import (
    LARGE_RADIUS,
    LOBED_IRREGULARITY,
    CaseMix,
    Patient,
    invent,
)
from simulations.synthetic.phantoms import Pose, body, chest
from simulations.synthetic.scanners import Scanner, take_ct, take_xray
from simulations.synthetic.segmentation_writer import write_mask, write_segmentation

__all__ = [
    "GENERATION",
    "CohortSpec",
    "HospitalSpec",
    "Scanner",
    "demo_cohort",
    "patients_of",
    "write_hospital",
    "write_hospitals",
]

#: Goes up when the same seed gives other files; kept hospitals of before are then not used.
GENERATION = 3


@dataclass(frozen=True, kw_only=True)
class HospitalSpec:
    """One hospital: how many patients, how ill, on which machine."""

    name: str
    patients: int
    prevalence: float  # part of patients whose lesion is malignant
    scanner: Scanner
    transfer_syntax: TransferSyntax
    images_per_patient: tuple[int, int] = (1, 3)  # fewest and most; each a study of its own
    normal: float = 0.2  # part of the other patients who have no lesion
    missing: float = 0.15  # part of laboratory values that were never taken
    manufacturer: str = "Synthetic"
    monochrome1: bool = False  # X-ray stored inverted, as many machines do
    signed: bool = False  # CT stored as signed values
    slice_mm: float = 5.0  # distance of CT slices

    def __post_init__(self) -> None:
        """Refuse what no hospital can be."""
        fewest, most = self.images_per_patient
        if self.patients < 1 or not 1 <= fewest <= most:
            message = (
                f"Hospital {self.name}: patients={self.patients}, images_per_patient="
                f"{self.images_per_patient}: expected at least 1, and fewest <= most from 1 on."
            )
            raise ConfigurationError(message)
        for name in ("prevalence", "normal", "missing"):
            part: float = getattr(self, name)
            if not 0 <= part <= 1:
                message = f"Hospital {self.name}: {name}={part}: expected a part from 0 to 1."
                raise ConfigurationError(message)


@dataclass(frozen=True, kw_only=True)
class CohortSpec:
    """Several hospitals that see the same disease."""

    modality: Literal["xray", "ct"]
    hospitals: tuple[HospitalSpec, ...]
    image_size: int = 96  # rows and columns
    slices: int = 16  # of a CT series
    separation: float = 1.0  # of malignant from benign lesions; less is harder

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        names = [hospital.name for hospital in self.hospitals]
        if len(set(names)) < len(names):
            message = f"hospitals={names}: each needs a name of its own."
            raise ConfigurationError(message)
        if self.image_size < 32 or self.slices < 2:
            message = (
                f"image_size={self.image_size}, slices={self.slices}: expected at least 32 and 2."
            )
            raise ConfigurationError(message)


def demo_cohort(modality: Literal["xray", "ct"], patients: int) -> CohortSpec:
    """Return four hospitals that differ in size, case mix, machine and file format."""
    north, south, east, west = _DEMO_SCANNERS[modality]
    return CohortSpec(
        modality=modality,
        hospitals=(
            HospitalSpec(
                name="north",
                patients=_part(0.40, patients),
                prevalence=0.35,
                scanner=north,
                transfer_syntax="explicit",
                manufacturer="Aurora",
            ),
            HospitalSpec(
                name="south",
                patients=_part(0.30, patients),
                prevalence=0.50,
                scanner=south,
                transfer_syntax="jpeg-ls",
                monochrome1=True,
                manufacturer="Meridian",
                slice_mm=4.0,
            ),
            HospitalSpec(
                name="east",
                patients=_part(0.18, patients),
                prevalence=0.25,
                scanner=east,
                transfer_syntax="rle",
                manufacturer="Zephyr",
                images_per_patient=(1, 1),
            ),
            HospitalSpec(
                name="west",
                patients=_part(0.12, patients),
                prevalence=0.60,
                scanner=west,
                transfer_syntax="implicit",
                signed=True,
                manufacturer="Occident",
                images_per_patient=(1, 6),
                slice_mm=6.0,
            ),
        ),
    )


#: Of north, south, east and west.
_DEMO_SCANNERS: dict[Literal["xray", "ct"], tuple[Scanner, Scanner, Scanner, Scanner]] = {
    "xray": (
        Scanner(),
        Scanner(gain=0.85, offset=0.08, noise=0.045),
        Scanner(gamma=1.4, blur=1, noise=0.02),
        Scanner(gain=1.05, gamma=0.75, noise=0.05),
    ),
    "ct": (
        Scanner(),
        Scanner(offset=0.01, noise=0.045),
        Scanner(blur=1, noise=0.02),
        Scanner(gain=1.02, noise=0.06),
    ),
}


def _part(share: float, patients: int) -> int:
    return max(10, round(share * patients))


def write_hospitals(folder: Path, spec: CohortSpec, seed: int) -> tuple[Path, ...]:
    """Write every hospital below folder; the same seed gives the same bytes."""
    return tuple(write_hospital(folder, spec, hospital, seed) for hospital in spec.hospitals)


def write_hospital(folder: Path, spec: CohortSpec, hospital: HospitalSpec, seed: int) -> Path:
    """Write one hospital: DICOM files, masks, and last labels.csv; return its folder.

    Every patient has a generator of their own, so hospitals may be written in any order.
    """
    site = folder / hospital.name
    (site / "masks").mkdir(parents=True, exist_ok=True)
    rows = [
        row
        for patient, rng in _patients(spec, hospital, seed)
        for row in _write_patient(site, spec, hospital, patient, rng)
    ]
    with (site / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return site


def patients_of(spec: CohortSpec, hospital: HospitalSpec, seed: int) -> tuple[Patient, ...]:
    """Return the patients that write_hospital writes, with the truth about them."""
    return tuple(patient for patient, _ in _patients(spec, hospital, seed))


def _patients(
    spec: CohortSpec, hospital: HospitalSpec, seed: int
) -> Iterator[tuple[Patient, np.random.Generator]]:
    mix = CaseMix(
        prevalence=hospital.prevalence,
        normal=hospital.normal,
        missing=hospital.missing,
        separation=spec.separation,
    )
    for number in range(hospital.patients):
        # With the modality: one identifier must never name two unlike objects.
        name = f"{seed}/{spec.modality}/{hospital.name}/{number}"
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        yield invent(f"SIM{digest[8:14].hex().upper()}", mix, rng), rng


def _write_patient(
    site: Path, spec: CohortSpec, hospital: HospitalSpec, patient: Patient, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Write the patient's studies and return their rows of labels.csv."""
    fewest, most = hospital.images_per_patient
    rows = []
    for number in range(int(rng.integers(fewest, most + 1))):
        study = InventedStudy(
            patient=patient.identifier, number=number, age=patient.age, sex=patient.sex
        )
        write = _WRITERS[spec.modality]
        rows.append(_row(patient, study, write(site, spec, hospital, patient, study, rng)))
    return rows


def _write_xray(
    site: Path,
    spec: CohortSpec,
    hospital: HospitalSpec,
    patient: Patient,
    study: InventedStudy,
    rng: np.random.Generator,
) -> str:
    """Write a picture and its mask; return the mask's path below the site."""
    picture, mask = chest(spec.image_size, patient.anatomy, patient.lesions, _pose(rng), rng)
    taken = take_xray(picture, hospital.scanner, rng)
    write_xray(site / f"{study.name}.dcm", taken, study, _machine(hospital))
    path = f"masks/{study.name}.png"
    write_mask(site / path, mask)
    return path


def _write_ct(
    site: Path,
    spec: CohortSpec,
    hospital: HospitalSpec,
    patient: Patient,
    study: InventedStudy,
    rng: np.random.Generator,
) -> str:
    """Write a series and its segmentation; return the segmentation's path below the site."""
    shape = (spec.slices, spec.image_size, spec.image_size)
    aspect = hospital.slice_mm / pixel_mm(spec.image_size)
    volume, mask = body(shape, aspect, patient.anatomy, patient.lesions, _pose(rng), rng)
    machine = _machine(hospital)
    write_ct(site / study.name, take_ct(volume, hospital.scanner, rng), study, machine)
    path = f"masks/{study.name}.dcm"
    write_segmentation(site / path, mask, study, machine)
    return path


_WRITERS = {"xray": _write_xray, "ct": _write_ct}


def _pose(rng: np.random.Generator) -> Pose:
    shift: list[float] = rng.normal(0, 0.025, 3).tolist()
    return Pose(right=shift[0], down=shift[1], zoom=1 + shift[2])


def _machine(hospital: HospitalSpec) -> Machine:
    return Machine(
        hospital=hospital.name,
        manufacturer=hospital.manufacturer,
        transfer_syntax=hospital.transfer_syntax,
        inverted=hospital.monochrome1,
        signed=hospital.signed,
        slice_mm=hospital.slice_mm,
    )


def _row(patient: Patient, study: InventedStudy, mask: str) -> dict[str, str]:
    """Return one row of labels.csv; an empty cell is a value that was never taken."""
    taken = patient.measured
    lobed = any(lesion.irregularity > LOBED_IRREGULARITY for lesion in patient.lesions[:1])
    return {
        "PatientID": patient.identifier,
        "StudyInstanceUID": study.study_uid,
        "SeriesInstanceUID": study.series_uid,
        "AccessionNumber": study.accession,
        "malignant": str(int(patient.finding == "malignant")),
        "finding": patient.finding,
        "large": str(int(patient.radius > LARGE_RADIUS)),
        "lobed": str(int(lobed)),
        "age": str(patient.age),
        "sex": patient.sex,
        "crp": f"{patient.truth.crp:.1f}" if "crp" in taken else "",
        "ldh": f"{patient.truth.ldh:.0f}" if "ldh" in taken else "",
        "haemoglobin": f"{patient.truth.haemoglobin:.1f}" if "haemoglobin" in taken else "",
        "time_days": str(patient.time_days),
        "event": str(int(patient.event)),
        "mask": mask,
    }
