"""Account of every study of a site: used by a run, or left out and why.

Nothing here leaves the site; client/cohort_statistics/released_counts.py makes counts of it that
may.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from client.dicom.headers.instance import Instance, Quarantined
from client.dicom.reading.volume import turn_of
from client.dicom.reasons import NOTICES, Reason, Unusable

#: No image was to be had of these, so none is missing.
NO_IMAGES = frozenset({Reason.DICOMDIR, Reason.NO_PIXELS, Reason.SEGMENTATION, Reason.SLIDE_LABEL})
#: A file of another kind is no study unless it is named like an image.
_IMAGE_NAMES = frozenset({"", ".dcm", ".dicom", ".ima", ".img"})


#: A study, and its patient where each was looked at alone.
_Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class CohortFacts:
    """What loading a cohort found, without its images."""

    unusable: tuple[Unusable, ...] = ()
    #: Files (2-D) or series (3-D) whose images are used, each with its patient (see `by_patient`).
    sources: frozenset[tuple[str, str]] = frozenset()
    #: Each patient was looked at alone, so files that do not say whose they are count for nobody.
    by_patient: bool = False
    patients: tuple[str, ...] = ()  # that are used
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # patients by split
    #: Tables of outcomes as common.messages.cohort_statistics names them: row -> patients.
    outcomes: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    #: How the run's rules for series fared: rule -> matched, ambiguous, missing -> patients.
    fared: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def owner(self, patient: str) -> str:
        """Return the patient where each was looked at alone, else nobody."""
        return patient if self.by_patient else ""


@dataclass(frozen=True, kw_only=True)
class ScanGrid:
    """Grid of a volume as it was scanned, along slices, rows and columns as a network sees them."""

    spacing: tuple[float, float, float]  # mm
    extent: tuple[float, float, float]  # mm


@dataclass(frozen=True, kw_only=True)
class StudyAccount:
    """One study, as a run sees it."""

    key: str  # Study Instance UID; a file's path where no header could be read
    patient: str  # PatientID; the folder where no file says
    modality: str
    files: int
    used: bool  # some of its images are in the cohort
    reasons: Counter[Reason]  # of its files and series that are left out, and of its patient
    age: float | None  # years, at the study
    spacing: float | None  # mm between rows, of its first image that says so
    slice_distance: float | None  # mm
    grid: ScanGrid | None = None  # of the first volume that is used
    images: tuple[Path, ...] = ()  # files that hold images
    named: bool = True  # some of its files say whose it is

    @property
    def reason(self) -> Reason | None:
        """Why it is left out: the reason of most of its files; None where it is used."""
        if self.used:
            return None
        missed = {r: n for r, n in self.reasons.items() if r not in NO_IMAGES} or self.reasons
        if not missed:
            return Reason.LABEL_UNUSABLE  # its row is all that is left to be wrong
        return max(missed, key=lambda reason: (missed[reason], reason.name))


def account(
    rows: Iterable[Instance], quarantined: Iterable[Quarantined], facts: CohortFacts, folder: Path
) -> tuple[StudyAccount, ...]:
    """Return every study of the folder, in the order of their keys.

    Where each patient was looked at alone, a study is one patient's, whoever shares its UID.
    """
    folder = folder.absolute()
    images: dict[_Key, list[Instance]] = defaultdict(list)
    homes: dict[Path, set[str]] = defaultdict(set)  # studies by folder
    for row in rows:
        if facts.by_patient and not row.patient:
            continue
        key = row.study or _below(row.path, folder)
        images[key, facts.owner(row.patient)].append(row)
        homes[row.path.parent].add(key)
    others: dict[_Key, list[Quarantined]] = defaultdict(list)
    for odd in quarantined:
        if odd.reason is Reason.WITHDRAWN:  # nothing of them is told, not even that they are gone
            continue
        if facts.by_patient and not odd.patient:
            continue
        study = (
            odd.study or _below(Path(odd.what), folder)
            if facts.by_patient
            else (_study_of(odd, homes, folder))
        )
        place = study, facts.owner(odd.patient)
        if place in images or _is_missed(odd):
            others[place].append(odd)
    reasons = _reasons(facts.unusable)
    return tuple(
        _study(key, images[key, owner], others[key, owner], reasons, facts, folder)
        for key, owner in sorted({*images, *others})
    )


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _study_of(odd: Quarantined, homes: Mapping[Path, set[str]], folder: Path) -> str:
    """Return the study of a file: its own word, else that of the files beside it, if one."""
    beside = homes.get(Path(odd.what).parent, set())
    if odd.study:
        return odd.study
    return next(iter(beside)) if len(beside) == 1 else _below(Path(odd.what), folder)


def _is_missed(odd: Quarantined) -> bool:
    if odd.reason is Reason.NOT_DICOM:
        return Path(odd.what).suffix.lower() in _IMAGE_NAMES
    return odd.reason not in NO_IMAGES


def _reasons(unusable: Iterable[Unusable]) -> dict[tuple[str, str], list[Reason]]:
    """Return the reasons by whose they are, and what about: a file, a series, a patient."""
    found: dict[tuple[str, str], list[Reason]] = defaultdict(list)
    for problem in unusable:
        if problem.reason not in NOTICES:
            found[problem.patient, problem.what.partition(" frame ")[0]].append(problem.reason)
    return found


def _study(
    key: str,
    rows: Sequence[Instance],
    odd: Sequence[Quarantined],
    reasons: Mapping[tuple[str, str], list[Reason]],
    facts: CohortFacts,
    folder: Path,
) -> StudyAccount:
    names = [_below(row.path, folder) for row in rows]
    patients = [row.patient for row in rows] + [file.patient for file in odd]
    patient = next((p for p in patients if p), "")

    def why(name: str) -> list[Reason]:
        return [r for owner in {"", patient} for r in reasons.get((owner, name), ())]

    told: Counter[Reason] = Counter()
    for name in (*names, *sorted({row.series for row in rows})):
        told.update(why(name))
    for file in odd:
        told.update(why(_below(Path(file.what), folder)) or [file.reason])
    told.update(why(f"patient {patient}"))
    places = [row.path for row in rows] + [Path(file.what) for file in odd]
    first = rows[0] if rows else None
    owner = facts.owner(patient)
    taken = [row for row in rows if (owner, row.series) in facts.sources]
    return StudyAccount(
        key=key,
        patient=patient or f"folder {_below(places[0].parent, folder)}",
        modality=first.modality if first else "",
        files=len(places),
        used=any(
            {(owner := facts.owner(r.patient), n), (owner, r.series)} & facts.sources
            for n, r in zip(names, rows, strict=True)
        ),
        reasons=told,
        age=age_of(first) if first else None,
        named=bool(patient),
        spacing=next((r.spacing[0] for r in rows if r.spacing), None),
        slice_distance=slice_distance(rows),
        grid=volume_grid(taken),
        images=tuple(row.path for row in rows),
    )


def age_of(row: Instance) -> float | None:
    """Return a patient's age at a study in years: Patient's Age, else from the two dates."""
    text = row.patient_age.strip().upper()
    units = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    # Also superscripts are digits to Python, and no numbers.
    if len(text) == 4 and text.isascii() and text[:3].isdigit() and text[3] in units:
        return int(text[:3]) * units[text[3]]
    born, seen = _date(row.birth_date), _date(row.study_date)
    if born is None or seen is None or seen < born:
        return None
    return (seen - born).days / 365.25


def _date(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def slice_distance(rows: Sequence[Instance]) -> float | None:
    """Return the median distance between the places of a study's first series, in mm."""
    levels = _levels(rows)
    gaps = sorted(high - low for low, high in pairwise(levels))
    return (gaps[len(gaps) // 2] or None) if gaps else None


def volume_grid(rows: Sequence[Instance]) -> ScanGrid | None:
    """Return the grid of the first series; None where it is no volume."""
    distance = slice_distance(rows)
    if distance is None or rows[0].spacing is None:
        return None
    first = rows[0]
    places = len({round(level, 3) for level in _levels(rows)})
    height, width = rows[0].spacing
    plane = [(height, height * first.rows), (width, width * first.columns)]
    cosines = np.array(first.orientations[0])
    if turn_of(cosines[3:], cosines[:3]).transposed:
        plane.reverse()
    (row, down), (column, across) = plane
    return ScanGrid(spacing=(distance, row, column), extent=(distance * places, down, across))


def _levels(rows: Sequence[Instance]) -> list[float]:
    """Return where the pictures of a study's first series lie along their normal, rising, in mm."""
    series = [row for row in rows if row.series == rows[0].series] if rows else []
    places = [p for row in series for p in row.positions]
    turns = [c for row in series for c in row.orientations]
    if len(places) < 2 or not turns:
        return []
    a, b, c, d, e, f = turns[0]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    return sorted(sum(n * x for n, x in zip(normal, place, strict=True)) for place in places)
