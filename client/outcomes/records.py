"""Records of patients, in the same words for every source."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

Sex = Literal["M", "F", "O", ""]


@dataclass(frozen=True, kw_only=True)
class Person:
    """One patient of the source."""

    key: str  # in the source
    patient: str  # PatientID in the images
    sex: Sex
    born: date | None
    dead: bool
    died: date | None  # None where nobody knows the day, or where they live


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One imaging study."""

    person: str
    uid: str  # StudyInstanceUID; empty where the source has none
    accession: str
    day: date | None


@dataclass(frozen=True, kw_only=True)
class ConfirmedDiagnosis:
    """One diagnosis that was confirmed."""

    person: str
    codes: frozenset[str]
    day: date | None  # of its onset, or else of its record


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One value that is final."""

    person: str
    codes: frozenset[str]
    day: date | None
    value: str
    unit: str  # UCUM; empty for what has none


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Something in the source that cannot be used."""

    what: str  # Observation/17, measurement 17
    why: str


@dataclass(kw_only=True)
class OutcomeRecords:
    """Everything that was asked for; filled page by page."""

    persons: list[Person] = field(default_factory=list)
    studies: list[StudyRecord] = field(default_factory=list)
    diagnoses: list[ConfirmedDiagnosis] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    #: By person: the last day on which the source knows anything of them.
    last_contact: dict[str, date] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)

    def seen(self, person: str, day: date | None) -> None:
        """Note a day on which a patient was in the hospital."""
        if day is not None:
            self.last_contact[person] = max(day, self.last_contact.get(person, day))
