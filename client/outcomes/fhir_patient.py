"""One FHIR R4 Patient resource as a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import cast

from pydantic import ValidationError

from client.outcomes.fhir_server import Resource
from client.outcomes.fhir_values import UnusableResource, birthday_of, day_of, not_fhir
from client.outcomes.records import Sex

#: https://hl7.org/fhir/R4/valueset-administrative-gender.html
_SEXES: Mapping[str, Sex] = {"male": "M", "female": "F", "other": "O", "unknown": ""}
#: https://hl7.org/fhir/R4/valueset-link-type.html
_LINKS = frozenset({"replaced-by", "replaces", "refer", "seealso"})
NOBODY = "a Patient that its link does not name"
#: Before what a link names the other record by, where that is no key: no key holds a blank.
BY = "with the identifier "


@dataclass(frozen=True, kw_only=True)
class PatientRecord:
    """One Patient resource."""

    key: str
    tokens: frozenset[str] = frozenset()  # all identifiers as searches have them, see `_tokens`
    names: frozenset[str] = frozenset()  # identifiers of the plan's system, old ones only if alone
    old_names: frozenset[str] = frozenset()
    sex: Sex = ""
    born: date | None = None
    birth: str = ""  # as it is written: a year or month alone differs from no day in it
    dead: bool = False
    alive: bool = False  # it says so
    died: date | None = None
    active: bool = True
    links: tuple[tuple[str, str], ...] = ()  # type, key of the other or `BY` its identifier
    fault: str = ""  # why it cannot be used


def read_record(resource: Resource, system: str | None, root: str) -> PatientRecord:
    """Return a resource as a record; one that cannot be read still has its links.

    `system` is that of the PatientIDs, `root` the server's own address.
    """
    from fhir.resources.R4B.patient import Patient

    key = str(resource.get("id", "?"))[:64]
    links: tuple[tuple[str, str], ...] = ()
    try:
        links = tuple(_links(resource, root))
        patient = Patient.model_validate(resource)
        if patient.gender is not None and patient.gender not in _SEXES:
            message = f"gender {str(patient.gender)[:20]!r} is none of {', '.join(_SEXES)}"
            raise UnusableResource(message)
        ours = [
            (str(one.value).strip(), one.use == "old")
            for one in patient.identifier or ()
            if one.system == system and one.value
        ]
        current = frozenset(name for name, old in ours if not old)
        every = frozenset(name for name, _ in ours)
        return PatientRecord(
            key=key,
            tokens=_tokens(resource),
            names=current or every,
            old_names=every - (current or every),
            sex=_SEXES[patient.gender or "unknown"],
            born=birthday_of(patient.birthDate),
            birth=str(patient.birthDate or ""),
            dead=bool(patient.deceasedBoolean) or patient.deceasedDateTime is not None,
            alive=patient.deceasedBoolean is False,
            died=day_of(patient.deceasedDateTime),
            active=patient.active is not False,
            links=links,
        )
    except UnusableResource as problem:
        return PatientRecord(key=key, tokens=_tokens(resource), links=links, fault=str(problem))
    except ValidationError as error:
        return PatientRecord(key=key, tokens=_tokens(resource), links=links, fault=not_fhir(error))


def _links(resource: Resource, root: str) -> Iterator[tuple[str, str]]:
    """Yield the type and the other Patient of each link; a RelatedPerson is nobody's record."""
    links = resource.get("link")
    for link in links if isinstance(links, list) else ():
        one = cast("Mapping[str, object]", link) if isinstance(link, dict) else {}
        kind, other = str(one.get("type")), one.get("other")
        reference = str((other.get("reference") if isinstance(other, dict) else None) or "")
        if kind not in _LINKS:
            message = f"link.type {kind[:20]!r} is no code that FHIR has for it"
            raise UnusableResource(message)
        key = reference.rpartition("Patient/")[2].partition("/")[0]
        if "://" in reference and not reference.startswith(root):
            key = reference  # of another server
        if not reference and isinstance(other, dict):
            token = _token(other.get("identifier"))
            key = BY + token if token and other.get("type") != "RelatedPerson" else ""
        if key or (kind == "replaced-by" and "RelatedPerson/" not in reference):
            yield kind, key


def _tokens(resource: Resource) -> frozenset[str]:
    """Return identifiers as system|value, and as value, since a link may name no system."""
    identifiers = resource.get("identifier")
    listed = identifiers if isinstance(identifiers, list) else ()
    plain = ({**one, "system": ""} for one in listed if isinstance(one, dict))
    return frozenset(filter(None, map(_token, (*listed, *plain))))


def _token(identifier: object) -> str:
    """Return an identifier as a search has it, or nothing where it has no value."""
    one = cast("Mapping[str, object]", identifier) if isinstance(identifier, dict) else {}
    system, value = (escaped(str(one.get(n) or "").strip()[:200]) for n in ("system", "value"))
    return f"{system}|{value}" if system and value else value


def escaped(text: str) -> str:
    r"""Return a value for a search: , | $ and \ are signs there (FHIR R4 3.1.1.4.0)."""
    return "".join(f"\\{c}" if c in "\\,|$" else c for c in text)
