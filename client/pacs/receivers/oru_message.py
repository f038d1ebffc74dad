"""A report as HL7 v2.5.1 ORU^R01 (chapter 7), made of the FHIR report and the SR beside it.

The same report gives the same message to the byte, with the same control id (MSH-10), so that a
receiver knows one that was sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import cast

from pydicom.dataset import Dataset

from client.results.codes import RESEARCH
from client.site.results_section import CharacterSet, Hl7Receiver
from common.platform.errors import CohortError

#: HL7 2.5.1, 2.7.1; the backslash first.
_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "&": "\\T\\"}
_ENCODINGS: Mapping[CharacterSet, str] = {
    "UNICODE UTF-8": "utf-8",
    "8859/1": "iso-8859-1",
    "8859/15": "iso-8859-15",
    "ASCII": "ascii",
}
#: Coding systems as HL7 calls them (table HL70396), by FHIR's address.
_SYSTEMS = {
    "http://snomed.info/sct": "SCT",
    "http://loinc.org": "LN",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://unitsofmeasure.org": "UCUM",
}
_SEXES = {"M": "M", "F": "F", "O": "O"}
_PRELIMINARY = "P"  # OBR-25 and OBX-11: no person has looked

Json = Mapping[str, object]


def oru_message(bundle: Json, header: Dataset, receiver: Hl7Receiver) -> tuple[bytes, str]:
    """Return the message and its control id; CohortError where it cannot be written.

    header: of the SR of the same score, which has the patient as the images do.
    """
    resources = [cast("Json", e["resource"]) for e in cast("list[Json]", bundle["entry"])]
    report = next(one for one in resources if one["resourceType"] == "DiagnosticReport")
    control = str(report["id"]).replace("-", "")[:20]
    made = _moment(str(report["issued"]))
    segments = [
        _msh(receiver, control, made),
        _segment("PID", 1, "", _patient(header), "", _name(header), "", *_person(header)),
        _obr(report, header, made),
        _segment("NTE", 1, "", _escaped(RESEARCH)),
        *_observations(resources, header, report),
    ]
    try:
        content = "".join(f"{one}\r" for one in segments).encode(_ENCODINGS[receiver.character_set])
    except UnicodeEncodeError as error:
        message = (
            f"The message holds a letter that {receiver.character_set} does not have "
            f"(U+{ord(error.object[error.start]):04X}). Write results.hl7.character_set: UNICODE "
            "UTF-8, if the receiver takes it."
        )
        raise CohortError(message) from error
    return content, control


def _segment(name: str, *fields: object) -> str:
    """Return a segment of fields that are escaped already, without empty ones at its end."""
    return "|".join([name, *map(str, fields)]).rstrip("|")


def _escaped(text: object) -> str:
    """Return text as a part of a field; a line's end or another control character is a blank."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return "".join(_ESCAPES.get(c, c) for c in plain).strip()


def _msh(receiver: Hl7Receiver, control: str, made: str) -> str:
    own, others = receiver.own_application, receiver.application
    # MSH-1 is the separator itself, so MSH-2 stands first; MSH-17 (country) is left open.
    head = ["^~\\&", own, receiver.own_facility, others, receiver.facility, made, ""]
    return _segment(
        "MSH",
        *head,
        *("ORU^R01^ORU_R01", control, "P", "2.5.1", "", "", "AL", "NE", ""),
        receiver.character_set,
    )


def _moment(iso: str) -> str:
    """Return a moment as TS has it, with its offset from UTC."""
    return datetime.fromisoformat(iso).strftime("%Y%m%d%H%M%S%z")


def _patient(header: Dataset) -> str:
    issuer = _escaped(header.get("IssuerOfPatientID") or "")
    return f"{_escaped(header.get('PatientID') or '')}^^^{issuer}^PI".removesuffix("^^^^PI")


def _name(header: Dataset) -> str:
    """Return PID-5 of DICOM's PN, whose components have the same order (XPN, PS3.5 6.2.1)."""
    first = str(header.get("PatientName") or "").split("=")[0]
    return "^".join(map(_escaped, first.split("^"))).rstrip("^")


def _person(header: Dataset) -> tuple[str, str]:
    return (
        _escaped(header.get("PatientBirthDate") or ""),
        _SEXES.get(str(header.get("PatientSex") or ""), "U"),
    )


def _obr(report: Json, header: Dataset, made: str) -> str:
    accession = _escaped(header.get("AccessionNumber") or "")
    taken = _escaped(f"{header.get('StudyDate') or ''}{header.get('StudyTime') or ''}"[:14])
    words = _escaped(cast("Mapping[str, str]", report["code"])["text"])
    service = f"{str(report['id'])[:8]}^{words}^99WARDROUND"
    fields = ["" for _ in range(25)]
    fields[0], fields[1], fields[2] = "1", accession, accession or str(report["id"])
    fields[3], fields[6], fields[21] = service, taken, made
    fields[23], fields[24] = "RAD", _PRELIMINARY
    return _segment("OBR", *fields)


def _observations(resources: Sequence[Json], header: Dataset, report: Json) -> Iterator[str]:
    """Yield OBX segments: the study, then numbers with their parts, then the sentences."""
    number = 1
    study = f"113014^{_escaped('DICOM Study')}^DCM"
    yield _obx(number, "ST", study, "", str(header.StudyInstanceUID), "")
    for group, one in enumerate((r for r in resources if r["resourceType"] == "Observation"), 1):
        parts = [one, *cast("Sequence[Json]", one.get("component", ()))]
        for place, part in enumerate(parts):
            number += 1
            name = _coded(cast("Json", part["code"]))
            yield _valued(number, name, f"{group}.{place}" if place else str(group), part)
    for line in str(report["conclusion"]).splitlines():
        number += 1
        yield _obx(number, "TX", "121106^Comment^DCM", "", _escaped(line), "")


def _valued(number: int, name: str, sub: str, part: Json) -> str:
    measured = cast("Mapping[str, str] | None", part.get("valueQuantity"))
    if measured is not None:
        unit = f"{_escaped(measured['code'])}^{_escaped(measured['unit'])}^UCUM"
        return _obx(number, "NM", name, sub, f"{float(measured['value']):.10g}", unit)
    coded = cast("Json | None", part.get("valueCodeableConcept"))
    if coded is not None:
        return _obx(number, "CWE", name, sub, _coded(coded), "")
    return _obx(number, "ST", name, sub, _escaped(part.get("valueString", "")), "")


def _obx(number: int, kind: str, name: str, sub: str, value: str, unit: str) -> str:
    return _segment("OBX", number, kind, name, sub, value, unit, "", "", "", "", _PRELIMINARY)


def _coded(concept: Json) -> str:
    codings = cast("Sequence[Mapping[str, str]]", concept.get("coding", ()))
    if not codings:
        return f"^{_escaped(concept.get('text', ''))}"
    first = codings[0]
    system = _SYSTEMS.get(first["system"], "99WARDROUND")
    return f"{_escaped(first['code'])}^{_escaped(first['display'])}^{system}"
