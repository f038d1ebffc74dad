"""Invented patients: lesion, laboratory values and survival.

Malignant lesions are larger, lobed, less sharply bordered and more often have satellites.
C-reactive protein and lactate dehydrogenase rise with malignancy, haemoglobin falls. The hazard
of death, constant in time, is

    BASELINE_PER_YEAR * exp(HAZARD_LESION * radius / 0.05
                            + HAZARD_AGE * (age - 60) / 10
                            + HAZARD_CRP * (log1p(crp) - 2))

with the radius of the first lesion, 0 without one, and crp as it is whether it was measured or not.
Patients are followed until they leave, at a uniform time, or until the study ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulations.synthetic.phantoms import Anatomy, Lesion

BASELINE_PER_YEAR = 0.10
HAZARD_LESION = 0.5  # log hazard ratio per 0.05 of lesion radius
HAZARD_AGE = 0.4  # per ten years
HAZARD_CRP = 0.3  # per unit of log1p(crp)
FOLLOW_UP_YEARS = 5.0
DAYS_PER_YEAR = 365.25

Finding = Literal["normal", "benign", "malignant"]
#: Lesions above these are called large and lobed: the two labels of the multi-label task.
LARGE_RADIUS = 0.07
LOBED_IRREGULARITY = 0.5


@dataclass(frozen=True, kw_only=True)
class CaseMix:
    """Who comes to a hospital."""

    prevalence: float  # part of all patients whose lesion is malignant
    normal: float  # part of the other patients who have no lesion
    missing: float  # part of laboratory values that were never taken
    separation: float  # of malignant from benign: 0 none, 1 as in demo_cohort


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """What a blood sample would show."""

    crp: float  # C-reactive protein, mg/l
    ldh: float  # lactate dehydrogenase, U/l
    haemoglobin: float  # g/dl


@dataclass(frozen=True, kw_only=True)
class Patient:
    """An invented patient, with what nobody at the hospital knows."""

    identifier: str
    finding: Finding
    lesions: tuple[Lesion, ...]  # the largest first; none for the finding normal
    anatomy: Anatomy
    age: int
    sex: Literal["f", "m"]
    truth: Laboratory  # all values, measured or not
    measured: frozenset[str]  # names of the laboratory values that were taken
    time_days: int
    event: bool

    @property
    def radius(self) -> float:
        """Radius of the first lesion, 0 without one."""
        return self.lesions[0].radius if self.lesions else 0.0


def invent(identifier: str, mix: CaseMix, rng: np.random.Generator) -> Patient:
    """Draw one patient from the hospital's case mix."""
    malignant = bool(rng.random() < mix.prevalence)
    normal = bool(rng.random() < mix.normal) and not malignant
    # Drawn for everybody, so that one patient's finding does not change another draw.
    lesions = _lesions(mix.separation if malignant else 0.0, rng)
    age = round(float(np.clip(rng.normal(64 if malignant else 58, 11), 25, 90)))
    truth = _laboratory(rng, malignant=malignant)
    names = ("crp", "ldh", "haemoglobin")
    measured = frozenset(n for n in names if rng.random() >= mix.missing)
    radius = 0.0 if normal else lesions[0].radius
    time_days, event = _survival(hazard_per_year(radius, age, truth.crp), rng)
    return Patient(
        identifier=identifier,
        finding="malignant" if malignant else "normal" if normal else "benign",
        lesions=() if normal else lesions,
        anatomy=_anatomy(rng),
        age=age,
        sex="f" if rng.random() < 0.5 else "m",
        truth=truth,
        measured=measured,
        time_days=time_days,
        event=event,
    )


def hazard_per_year(radius: float, age: float, crp: float) -> float:
    """Return the true hazard of death."""
    log_ratio = (
        HAZARD_LESION * radius / 0.05
        + HAZARD_AGE * (age - 60) / 10
        + HAZARD_CRP * (np.log1p(crp) - 2)
    )
    return BASELINE_PER_YEAR * float(np.exp(log_ratio))


def _survival(hazard: float, rng: np.random.Generator) -> tuple[int, bool]:
    """Return days until death or until the patient was last seen, and whether it is death."""
    death = rng.exponential(1 / hazard)
    last_seen = min(FOLLOW_UP_YEARS, rng.uniform(0.5, 8.0))
    days = max(1, int(np.ceil(DAYS_PER_YEAR * min(death, last_seen))))
    return days, bool(death <= last_seen)


def _lesions(malignancy: float, rng: np.random.Generator) -> tuple[Lesion, ...]:
    """Return a lesion and its satellites."""
    radius = float(np.clip(rng.normal(0.056 + 0.020 * malignancy, 0.014), 0.03, 0.12))
    first = _lesion(malignancy, radius, rng)
    satellites = min(4, int(rng.poisson(0.15 + 1.2 * malignancy)))
    return (
        first,
        *(_lesion(malignancy, radius * rng.uniform(0.35, 0.6), rng) for _ in range(satellites)),
    )


def _lesion(malignancy: float, radius: float, rng: np.random.Generator) -> Lesion:
    lobes: list[float] = rng.uniform(0, 2 * np.pi, 3).tolist()
    return Lesion(
        left=bool(rng.random() < 0.5),
        across=rng.uniform(-1, 1),
        along=rng.uniform(-1, 1),
        depth=rng.uniform(0.35, 0.65),
        radius=radius,
        irregularity=float(np.clip(rng.normal(0.2 + 0.7 * malignancy, 0.3), 0, 1.3)),
        sharpness=float(np.clip(rng.normal(0.8 - 0.3 * malignancy, 0.12), 0.2, 0.95)),
        contrast=rng.uniform(0.3, 0.5),
        phases=(lobes[0], lobes[1], lobes[2]),
    )


def _laboratory(rng: np.random.Generator, *, malignant: bool) -> Laboratory:
    return Laboratory(
        crp=float(np.expm1(max(0.05, rng.normal(2.4 if malignant else 1.7, 0.7)))),
        ldh=float(max(90.0, rng.normal(260 if malignant else 220, 45))),
        haemoglobin=float(np.clip(rng.normal(12.2 if malignant else 13.4, 1.3), 6, 18)),
    )


def _anatomy(rng: np.random.Generator) -> Anatomy:
    # Python's floats: NumPy's own would turn float32 pictures into float64.
    about: list[float] = np.clip(rng.normal(1, 0.05, 3), 0.88, 1.12).tolist()
    return Anatomy(
        width=about[0],
        lungs=min(1.06, about[1]),
        heart=about[2],
        ribs=rng.uniform(0, 1),
        density=rng.uniform(0.9, 1.1),
    )
