"""FHIR R4 resources as records: checked by their schema, then by what their codes may be.

fhir.resources checks structure and types, but no value set: it takes a status that no such
resource can have. What is checked here besides: Observation.status, Condition.verificationStatus,
ImagingStudy.status and Patient.gender; that a resource is about a patient who was asked for, and
has a code that was asked for (some servers ignore search parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime

from pydantic import ValidationError

from client.outcomes.fhir_server import FhirServer, Resource
from client.outcomes.plan import Plan
from client.outcomes.records import Diagnosis, Observation, Person, Records, Sex, Study, Unread

#: https://hl7.org/fhir/R4/valueset-observation-status.html
_OBSERVATION_STATES = frozenset({
    "registered", "preliminary", "final", "amended", "corrected", "cancelled",
    "entered-in-error", "unknown",
})  # fmt: skip
_FINAL = frozenset({"final", "amended", "corrected"})
#: https://hl7.org/fhir/R4/valueset-condition-ver-status.html
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_VERIFIED = {
    "confirmed": True, "unconfirmed": False, "provisional": False, "differential": False,
    "refuted": False, "entered-in-error": False,
}  # fmt: skip
#: https://hl7.org/fhir/R4/valueset-imagingstudy-status.html
_STUDY_STATES = {
    "registered": True, "available": True, "unknown": True, "cancelled": False,
    "entered-in-error": False,
}  # fmt: skip
#: https://hl7.org/fhir/R4/valueset-administrative-gender.html
_SEXES: Mapping[str, Sex] = {"male": "M", "female": "F", "other": "O", "unknown": ""}
_UCUM = "http://unitsofmeasure.org"
_DICOM_UIDS = "urn:dicom:uid"
#: Patients asked for at once: a search's address stays below what servers take.
_AT_ONCE = 20


class _Odd(Exception):
    """A resource that cannot be used; says why."""


class FhirRecords:
    """A FHIR server as a source of records."""

    def __init__(self, plan: Plan, server: FhirServer) -> None:
        self._plan, self._server = plan, server

    def records(self, patients: frozenset[str] | None) -> Records:
        """Return what there is of these PatientIDs; None: of everybody."""
        self._server.check_version()
        found = Records()
        self._persons(patients, found)
        known = {person.key for person in found.persons}
        searches: list[tuple[str, frozenset[str], Callable[[Resource, Records], None]]] = [
            ("ImagingStudy", frozenset(), self._study),
            ("Condition", self._plan.conditions(), self._diagnosis),
            ("Observation", self._plan.observations(), self._observation),
        ]
        for kind, codes, read in searches:
            if kind != "ImagingStudy" and not codes:
                continue
            wanted = [("code", ",".join(sorted(codes)))] if codes else []
            for who in self._batches(known if patients is not None else None):
                for resource in self._server.search(kind, [*who, *wanted]):
                    _listed(resource, found, read, known)
        return found

    def _batches(self, known: set[str] | None) -> Iterator[list[tuple[str, str]]]:
        if known is None:
            yield []
            return
        keys = sorted(known)
        for start in range(0, len(keys), _AT_ONCE):
            yield [("patient", ",".join(keys[start : start + _AT_ONCE]))]

    def _persons(self, patients: frozenset[str] | None, found: Records) -> None:
        system = self._plan.patient_identifier or ""
        if patients is None:
            searches = [[("identifier", f"{system}|")]]
        else:
            names = sorted(_escaped(name) for name in patients)
            searches = [
                [("identifier", ",".join(f"{system}|{n}" for n in names[at : at + _AT_ONCE]))]
                for at in range(0, len(names), _AT_ONCE)
            ]
        for search in searches:
            for resource in self._server.search("Patient", search):
                _listed(resource, found, lambda r, f: self._person(r, f, patients), None)

    def _person(self, resource: Resource, found: Records, wanted: frozenset[str] | None) -> None:
        from fhir.resources.R4B.patient import Patient

        patient = Patient.model_validate(resource)
        names = {
            str(one.value).strip() for one in patient.identifier or ()
            if one.system == self._plan.patient_identifier and one.value
        }  # fmt: skip
        if wanted is not None:
            names &= wanted
        if len(names) != 1:
            message = f"has {len(names)} identifiers of {self._plan.patient_identifier}, expected 1"
            raise _Odd(message)
        if patient.gender is not None and patient.gender not in _SEXES:
            message = f"gender {str(patient.gender)[:20]!r} is none of {', '.join(_SEXES)}"
            raise _Odd(message)
        died = _day(patient.deceasedDateTime)
        found.persons.append(Person(
            key=str(patient.id), patient=names.pop(), sex=_SEXES[patient.gender or "unknown"],
            born=_birthday(patient.birthDate), died=died,
            dead=bool(patient.deceasedBoolean) or patient.deceasedDateTime is not None,
        ))  # fmt: skip

    def _study(self, resource: Resource, found: Records) -> None:
        from fhir.resources.R4B.imagingstudy import ImagingStudy

        study = ImagingStudy.model_validate(resource)
        if study.status not in _STUDY_STATES:
            raise _unknown_code("status", study.status)
        if not _STUDY_STATES[study.status]:
            return
        identifiers = [(one.system or "", str(one.value or "")) for one in study.identifier or ()]
        uids = [v.removeprefix("urn:oid:") for s, v in identifiers if s == _DICOM_UIDS]
        accession = self._plan.accession_identifier
        numbers = [v for s, v in identifiers if accession is not None and s == accession]
        person, day = _subject(study.subject), _day(study.started)
        found.seen(person, day)
        found.studies.append(Study(
            person=person, uid=uids[0] if uids else "", accession=numbers[0] if numbers else "",
            day=day,
        ))  # fmt: skip

    def _diagnosis(self, resource: Resource, found: Records) -> None:
        from fhir.resources.R4B.condition import Condition

        condition = Condition.model_validate(resource)
        codes = _codes(condition.code) & self._plan.conditions()
        if not codes:
            return
        for coding in (
            condition.verificationStatus.coding or () if condition.verificationStatus else ()
        ):
            if coding.system == _VERIFICATION:
                if coding.code not in _VERIFIED:
                    raise _unknown_code("verificationStatus", coding.code)
                if not _VERIFIED[coding.code]:
                    return
        person = _subject(condition.subject)
        day = _day(condition.onsetDateTime) or _period(condition.onsetPeriod)
        day = day or _day(condition.recordedDate)
        found.seen(person, day)
        found.diagnoses.append(Diagnosis(person=person, codes=codes, day=day))

    def _observation(self, resource: Resource, found: Records) -> None:
        from fhir.resources.R4B.observation import Observation as FhirObservation

        one = FhirObservation.model_validate(resource)
        codes = _codes(one.code) & self._plan.observations()
        if not codes:
            return
        if one.status not in _OBSERVATION_STATES:
            raise _unknown_code("status", one.status)
        if one.status not in _FINAL:
            if one.status in {"registered", "preliminary", "unknown"}:
                message = f"is {one.status}, expected final, amended or corrected"
                raise _Odd(message)
            return
        value, unit = _value(one)
        person = _subject(one.subject)
        day = _day(one.effectiveDateTime) or _day(one.effectiveInstant)
        day = day or _period(one.effectivePeriod)
        found.seen(person, day)
        found.observations.append(
            Observation(person=person, codes=codes, day=day, value=value, unit=unit)
        )


def _listed(
    resource: Resource, found: Records, read: Callable[[Resource, Records], None],
    known: Iterable[str] | None,
) -> None:  # fmt: skip
    """Read a resource, or list it with what is wrong; one bad resource stops nothing."""
    name = f"{resource.get('resourceType')}/{str(resource.get('id', '?'))[:64]}"
    try:
        if known is not None and _subject_of(resource) not in known:
            return  # of somebody who was not asked for
        read(resource, found)
    except _Odd as problem:
        found.unread.append(Unread(what=name, why=str(problem)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found.unread.append(Unread(what=name, why=f"is not FHIR R4: {place}: {first['msg']}"[:200]))


def _subject_of(resource: Resource) -> str:
    subject = resource.get("subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    return str(reference or "").rpartition("Patient/")[2].partition("/")[0]


def _subject(reference: object) -> str:
    text = str(getattr(reference, "reference", "") or "")
    key = text.rpartition("Patient/")[2].partition("/")[0]
    if not key:
        message = "names no patient"
        raise _Odd(message)
    return key


def _codes(concept: object) -> frozenset[str]:
    return frozenset(
        f"{coding.system or ''}|{coding.code}"
        for coding in getattr(concept, "coding", None) or ()
        if coding.code
    )


def _unknown_code(field: str, code: object) -> _Odd:
    return _Odd(f"{field} {str(code)[:20]!r} is no code that FHIR has for it")


def _day(value: object) -> date | None:
    """Return the day of a FHIR date; a month or a year alone is no day."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if value is not None:
        message = f"the date {str(value)[:20]} has no day"
        raise _Odd(message)
    return None


def _birthday(value: object) -> date | None:
    """Return the birthday; a year or month alone is taken at its middle."""
    parts = str(value).split("-") if isinstance(value, str) else []
    try:
        if len(parts) == 1:
            return date(int(parts[0]), 7, 1)
        if len(parts) == 2:
            return date(int(parts[0]), int(parts[1]), 15)
    except ValueError:
        return None
    return _day(value)


def _period(period: object) -> date | None:
    return _day(getattr(period, "start", None))


def _value(one: object) -> tuple[str, str]:
    """Return an Observation's value and unit as text (FHIR R4 10.1.3, value[x])."""
    quantity = getattr(one, "valueQuantity", None)
    if quantity is not None:
        if quantity.value is None or quantity.comparator is not None:
            message = f"has no exact value ({quantity.comparator or 'none'})"
            raise _Odd(message)
        ucum = quantity.code if quantity.system in {None, _UCUM} else None
        return format(quantity.value, "f"), str(ucum or quantity.unit or "")
    concept = getattr(one, "valueCodeableConcept", None)
    if concept is not None:
        coding = next(iter(concept.coding or ()), None)
        return str(coding.code if coding is not None and coding.code else concept.text or ""), ""
    for name in ("valueString", "valueInteger"):
        value = getattr(one, name, None)
        if value is not None:
            return str(value), ""
    flag = getattr(one, "valueBoolean", None)
    if flag is not None:
        return str(int(flag)), ""
    message = "has no value"
    raise _Odd(message)


def _escaped(text: str) -> str:
    r"""Return a value for a search: , | $ and \ are signs there (FHIR R4 3.1.1.4.0)."""
    return "".join(f"\\{c}" if c in "\\,|$" else c for c in text)
