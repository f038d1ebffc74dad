"""OUTCOMES.yaml: the source, the patients, and what each column of the table means.

    fhir: {url: https://fhir.hospital.example/r4, token_file: /etc/wardround/fhir.token}
    patient_identifier: urn:oid:1.2.276.0.76.4.1     # its value is the PatientID of the images
    key: AccessionNumber
    accession_identifier: urn:oid:1.2.276.0.76.4.2
    origin: study
    columns:
      age: {patient: age}
      sex: {patient: sex}
      diabetes: {condition: ["http://snomed.info/sct|44054006"]}
      crp: {observation: ["http://loinc.org|1988-5"], unit: mg/L, within_days: 90}
    outcome: {event: died, time: days, death: true, censored: last_contact}

For OMOP, `sql` stands in place of `fhir`, codes are concept identifiers, and PatientID is
person.person_source_value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from client.labels.csv_text import KEYS
from client.labels.schema import date_in
from client.labels.units import factor
from client.site.fhir_section import FhirAddress
from common.config.parts.section import Part, PositiveInt


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_day(text: str) -> str:
    if date_in(text) is None:
        message = "expected a date such as 2024-12-31"
        raise ValueError(message)
    return text


#: FHIR: system|code. OMOP: a concept's number.
Code = Annotated[str, BeforeValidator(_as_text)]
#: What is asked by codes, in FHIR's words.
Resource = Literal["Condition", "Observation"]
_Day = Annotated[str, AfterValidator(_is_day)]
_Whole = Annotated[int, Field(strict=True, ge=1, le=1000)]


def _absolute(path: Path | None) -> Path | None:
    if path is not None and not path.is_absolute():
        message = "expected a whole path that begins with /"
        raise ValueError(message)
    return path


_File = Annotated[Path, AfterValidator(_absolute)]


class FhirSource(FhirAddress):
    """A FHIR R4 server that is asked."""

    #: Resources on a page.
    page: _Whole = 100


class SqlSource(Part):
    """A database in the OMOP Common Data Model (5.3 or 5.4)."""

    #: File with the connection's URL (SQLAlchemy), readable by this user alone.
    url_file: _File
    #: Schema of the tables; without it, the connection's own.
    database_schema: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_$.]*$")


class Column(Part):
    """What one column of the table holds; nothing in it was known only after the origin."""

    patient: Literal["age", "sex"] | None = None
    #: 1 where any of these was diagnosed by the day of origin, else 0.
    condition: tuple[Code, ...] = ()
    #: The value that was measured by the day of origin.
    observation: tuple[Code, ...] = ()
    #: Of an observation (UCUM); what is in another unit is converted, or listed and left out.
    unit: str | None = None
    #: Which observation is taken where there are several.
    take: Literal["first", "last"] = "last"
    #: Observations that are older at the origin are left out.
    within_days: PositiveInt | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [bool(self.patient), bool(self.condition), bool(self.observation)]
        if sum(kinds) != 1:
            message = "give one of patient, condition and observation"
            raise ValueError(message)
        if not self.observation and (self.unit is not None or self.within_days is not None):
            message = "unit and within_days go with observation"
            raise ValueError(message)
        return self


class PlannedOutcome(Part):
    """An event after the origin, and how long it took or was waited for."""

    #: Name of the column that says whether the event was seen: 1 or 0.
    event: str
    #: Name of the column with the time from the origin to the event or to the end of watching.
    time: str
    unit: Literal["d", "wk", "mo", "a"] = "d"
    #: The event is the first of these diagnoses after the origin.
    condition: tuple[Code, ...] = ()
    #: The event is the patient's death.
    death: bool = False
    #: Until when a patient without the event was watched.
    censored: Literal["last_contact"] | _Day

    @model_validator(mode="after")
    def _one_event(self) -> Self:
        if self.death == bool(self.condition):
            message = "give either condition or death: true"
            raise ValueError(message)
        return self

    def in_unit(self, days: int) -> str:
        """Return a number of days in the column's unit."""
        return f"{days * (factor('d', self.unit) or 1.0):.6g}"


class OutcomesPlan(Part):
    """What to ask, of whom, and the table that is to come of it."""

    fhir: FhirSource | None = None
    sql: SqlSource | None = None
    #: The level that rows stand for, as in the images.
    key: Literal["PatientID", "StudyInstanceUID", "AccessionNumber"]
    #: System of the Patient.identifier that is the images' PatientID (FHIR).
    patient_identifier: str | None = None
    #: System of the ImagingStudy.identifier that is the AccessionNumber (FHIR).
    accession_identifier: str | None = None
    #: images: patients whose images are in the data folder; everybody: whom the source has.
    who: Literal["images", "everybody"] = "images"
    #: From when on outcomes count: the study's day, the first of origin_condition, or a date.
    origin: Literal["study", "condition"] | _Day = "study"
    origin_condition: tuple[Code, ...] = ()
    columns: Mapping[str, Column] = {}
    outcome: PlannedOutcome
    #: Of what it is right that nobody has one (in OMOP: conditions and measurements).
    none_expected: tuple[Resource, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.fhir is None) == (self.sql is None):
            message = "give one source: fhir or sql"
            raise ValueError(message)
        if self.fhir is not None and self.patient_identifier is None:
            message = "fhir needs patient_identifier, the system whose value is the PatientID"
            raise ValueError(message)
        if self.key == "AccessionNumber" and self.sql is not None:
            message = "OMOP has no accession numbers; use PatientID or StudyInstanceUID"
            raise ValueError(message)
        if self.key == "AccessionNumber" and self.accession_identifier is None:
            message = "key: AccessionNumber needs accession_identifier"
            raise ValueError(message)
        if (self.origin == "condition") != bool(self.origin_condition):
            message = "origin: condition and origin_condition belong together"
            raise ValueError(message)
        names = [*self.columns, self.outcome.event, self.outcome.time]
        twice = {name for name in names if names.count(name) > 1 or name in KEYS}
        if twice:
            message = f"the column {min(twice)} is named twice, or is a key of DICOM"
            raise ValueError(message)
        return self

    @property
    def origin_day(self) -> date | None:
        """The day that is everybody's origin, where it is one."""
        return date_in(self.origin)

    def conditions(self) -> frozenset[str]:
        """Return the codes of every diagnosis that is asked for."""
        columns = (code for column in self.columns.values() for code in column.condition)
        return frozenset((*columns, *self.outcome.condition, *self.origin_condition))

    def observations(self) -> frozenset[str]:
        """Return the codes of every observation that is asked for."""
        return frozenset(code for column in self.columns.values() for code in column.observation)
