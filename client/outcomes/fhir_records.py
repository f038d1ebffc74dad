"""FHIR R4 resources as records, checked by schema and codes.

fhir.resources checks structure and types, but no value set: it takes a status that no such
resource can have. What is checked here besides: Observation.status, Condition.verificationStatus,
ImagingStudy.status and Patient.gender; that a resource is about a patient who was asked for, and
has a code that was asked for (some servers ignore search parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydantic import ValidationError

from client.outcomes.fhir_persons import AT_ONCE, FhirPersons
from client.outcomes.fhir_server import FhirServer, Resource
from client.outcomes.fhir_values import (
    UnusableResource,
    codes_of,
    day_of,
    not_fhir,
    start_of,
    unknown_code,
    value_of,
)
from client.outcomes.outcomes_yaml import OutcomesPlan
from client.outcomes.records import (
    ConfirmedDiagnosis,
    Observation,
    OutcomeRecords,
    StudyRecord,
    Unread,
)
from common.platform.errors import CohortError

#: https://hl7.org/fhir/R4/valueset-observation-status.html
_OBSERVATION_STATES = frozenset(
    {
        "registered",
        "preliminary",
        "final",
        "amended",
        "corrected",
        "cancelled",
        "entered-in-error",
        "unknown",
    }
)
_FINAL = frozenset({"final", "amended", "corrected"})
#: https://hl7.org/fhir/R4/valueset-condition-ver-status.html
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_VERIFIED = {
    "confirmed": True,
    "unconfirmed": False,
    "provisional": False,
    "differential": False,
    "refuted": False,
    "entered-in-error": False,
}
#: https://hl7.org/fhir/R4/valueset-imagingstudy-status.html
_STUDY_STATES = {
    "registered": True,
    "available": True,
    "unknown": True,
    "cancelled": False,
    "entered-in-error": False,
}
_DICOM_UIDS = "urn:dicom:uid"


class FhirRecords:
    """A FHIR server as a source of records."""

    def __init__(self, plan: OutcomesPlan, server: FhirServer) -> None:
        self._plan, self._server = plan, server
        self._owner: dict[str, str] = {}  # key of the person by the key of each of their records

    def records(self, patients: frozenset[str] | None) -> OutcomeRecords:
        """Return what there is of these PatientIDs; None: of everybody."""
        self._server.check_version()
        found = OutcomeRecords()
        self._owner = FhirPersons(self._plan, self._server).find(patients, found)
        known = set(self._owner)
        searches: list[tuple[str, frozenset[str], Callable[[Resource, OutcomeRecords], None]]] = [
            ("ImagingStudy", frozenset(), self._study),
            ("Condition", self._plan.conditions(), self._diagnosis),
            ("Observation", self._plan.observations(), self._observation),
        ]
        for kind, codes, read in searches:
            if kind != "ImagingStudy" and not codes:
                continue
            wanted = [("code", ",".join(sorted(codes)))] if codes else []
            # Some servers know a patient by Patient/ID alone, and find nothing of the bare ID.
            for form in ("{}", "Patient/{}") if patients is not None else ("",):
                some = False
                for who in _batches(known, form):
                    for resource in self._server.search(kind, [*who, *wanted]):
                        if _subject_of(resource) in known:
                            _listed(resource, found, read)
                            some |= not codes or bool(_codes_in(resource) & codes)
                if some:
                    break
            else:
                self._ask_about(kind, codes, len(known))
        found.unread += self._passed_over()
        return found

    def _passed_over(self) -> Iterator[Unread]:
        """Yield by what the server did not search; what it sent of others was left out."""
        for kind in dict.fromkeys(kind for kind, _ in self._server.passed_over):
            names = [name for other, name in self._server.passed_over if other == kind]
            yield Unread(what="the server", why=f"does not search {kind} by {', '.join(names)}")

    def _ask_about(self, kind: str, codes: frozenset[str], people: int) -> None:
        """Refuse what would make everybody healthy: nobody has a resource that was asked for."""
        if kind == "ImagingStudy" or not people or kind in self._plan.none_expected:
            return
        unsaid = [name for other, name in self._server.passed_over if other == kind]
        why = f", and says that it does not search it by {', '.join(unsaid)}" if unsaid else ""
        asked = ", ".join(sorted(codes))[:200]
        message = (
            f"The server has no {kind} of {asked} for any of {people} patients{why}. Compare codes "
            f"and systems with the server's, and whether we may read {kind} there. If it is right "
            f"that nobody has one, write none_expected: [{kind}] into OUTCOMES.yaml."
        )
        raise CohortError(message)

    def _person(self, reference: object) -> str:
        """Return whom a resource is about, as the person that their record belongs to."""
        text = str(getattr(reference, "reference", "") or "")
        key = text.rpartition("Patient/")[2].partition("/")[0]
        if key not in self._owner:
            message = "names no patient"
            raise UnusableResource(message)
        return self._owner[key]

    def _study(self, resource: Resource, found: OutcomeRecords) -> None:
        from fhir.resources.R4B.imagingstudy import ImagingStudy

        study = ImagingStudy.model_validate(resource)
        if study.status not in _STUDY_STATES:
            raise unknown_code("status", study.status)
        if not _STUDY_STATES[study.status]:
            return
        identifiers = [(one.system or "", str(one.value or "")) for one in study.identifier or ()]
        uids = [v.removeprefix("urn:oid:") for s, v in identifiers if s == _DICOM_UIDS]
        accession = self._plan.accession_identifier
        numbers = [v for s, v in identifiers if accession is not None and s == accession]
        person, day = self._person(study.subject), day_of(study.started)
        found.seen(person, day)
        found.studies.append(
            StudyRecord(
                person=person,
                uid=uids[0] if uids else "",
                accession=numbers[0] if numbers else "",
                day=day,
            )
        )

    def _diagnosis(self, resource: Resource, found: OutcomeRecords) -> None:
        from fhir.resources.R4B.condition import Condition

        condition = Condition.model_validate(resource)
        codes = codes_of(condition.code) & self._plan.conditions()
        if not codes:
            return
        for coding in (
            condition.verificationStatus.coding or () if condition.verificationStatus else ()
        ):
            if coding.system == _VERIFICATION:
                if coding.code not in _VERIFIED:
                    raise unknown_code("verificationStatus", coding.code)
                if not _VERIFIED[coding.code]:
                    return
        person = self._person(condition.subject)
        day = day_of(condition.onsetDateTime) or start_of(condition.onsetPeriod)
        day = day or day_of(condition.recordedDate)
        found.seen(person, day)
        found.diagnoses.append(ConfirmedDiagnosis(person=person, codes=codes, day=day))

    def _observation(self, resource: Resource, found: OutcomeRecords) -> None:
        from fhir.resources.R4B.observation import Observation as FhirObservation

        one = FhirObservation.model_validate(resource)
        codes = codes_of(one.code) & self._plan.observations()
        if not codes:
            return
        if one.status not in _OBSERVATION_STATES:
            raise unknown_code("status", one.status)
        if one.status not in _FINAL:
            if one.status in {"registered", "preliminary", "unknown"}:
                message = f"is {one.status}, expected final, amended or corrected"
                raise UnusableResource(message)
            return
        value, unit = value_of(one)
        person = self._person(one.subject)
        day = day_of(one.effectiveDateTime) or day_of(one.effectiveInstant)
        day = day or start_of(one.effectivePeriod)
        found.seen(person, day)
        found.observations.append(
            Observation(person=person, codes=codes, day=day, value=value, unit=unit)
        )


def _batches(known: set[str], form: str) -> Iterator[list[tuple[str, str]]]:
    """Yield whom to search for, some at a time, in a form of their keys; all at once without."""
    if not form:
        yield []
        return
    keys = [form.format(key) for key in sorted(known)]
    for start in range(0, len(keys), AT_ONCE):
        yield [("patient", ",".join(keys[start : start + AT_ONCE]))]


def _listed(
    resource: Resource, found: OutcomeRecords, read: Callable[[Resource, OutcomeRecords], None]
) -> None:
    """Read a resource, or list it with what is wrong; one bad resource stops nothing."""
    name = f"{resource.get('resourceType')}/{str(resource.get('id', '?'))[:64]}"
    try:
        read(resource, found)
    except UnusableResource as problem:
        found.unread.append(Unread(what=name, why=str(problem)))
    except ValidationError as error:
        found.unread.append(Unread(what=name, why=not_fhir(error)))


def _codes_in(resource: Resource) -> frozenset[str]:
    """Return the codes of a resource that may be no FHIR."""
    concept = resource.get("code")
    codings = concept.get("coding") if isinstance(concept, dict) else None
    listed = codings if isinstance(codings, list) else ()
    return frozenset(f"{c.get('system')}|{c.get('code')}" for c in listed if isinstance(c, dict))


def _subject_of(resource: Resource) -> str:
    subject = resource.get("subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    return str(reference or "").rpartition("Patient/")[2].partition("/")[0]
