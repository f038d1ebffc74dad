"""FHIR R4 DiagnosticReport of a score, with its Observations in one Bundle.

It stays in the hospital: patient, order and study are named by the hospital's own identifiers,
and the server that takes it resolves them. Status and labels say that it is research.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydicom.sr.coding import Code

from client.results.codes import RATIO, RESEARCH, Own, concept, own, unit_of
from client.results.equipment import MANUFACTURER, PRODUCT, ReportedScore
from client.results.identity import Kind
from client.results.regions import Region, regions
from client.results.score import Quantity
from client.results.score_sentences import sentences
from common.config.parts.coded_concept import CodedStructure
from common.platform.code_hash import RELEASE

Json = dict[str, object]

#: http://hl7.org/fhir/R4/valueset-observation-status.html and -diagnostic-report-status.html:
#: fhir.resources accepts any word, so only these can be written.
Status = Literal["preliminary"]
_STATUS: Status = "preliminary"
_UCUM = "http://unitsofmeasure.org"
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UMLS": "http://www.nlm.nih.gov/research/umls",
}
_OWN_SYSTEM = "urn:wardround:codes"
#: Purpose of use: healthcare research (HL7 v3 ActReason), as FHIR's security labels have it.
_LABEL = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "HRESCH",
    "display": "healthcare research",
}


def diagnostic_report(finding: ReportedScore) -> bytes:
    """Return the Bundle as JSON, after fhir.resources has taken it."""
    from fhir.resources.R4B.bundle import Bundle

    bundle = _bundle(finding)
    Bundle.model_validate(bundle)
    return json.dumps(bundle, indent=1, ensure_ascii=False).encode()


def _bundle(finding: ReportedScore) -> Json:
    device = _device(finding)
    observations = [*_quantities(finding), *_structures(finding)]
    report: Json = {
        "resourceType": "DiagnosticReport",
        **_shared(finding, "report"),
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}
        ],
        "code": {"text": f"Research: {finding.score.model.name}"},
        "issued": finding.made.astimezone().isoformat(timespec="seconds"),
        "performer": [{"display": f"{PRODUCT} {RELEASE}"}],
        "result": [{"reference": _url(str(o["id"]))} for o in observations],
        "imagingStudy": [_study(finding)],
        "conclusion": "\n".join(sentences(finding)),
    }
    return {
        "resourceType": "Bundle",
        "id": _id(finding, "bundle"),
        "meta": {"security": [_LABEL]},
        "type": "collection",
        "timestamp": finding.made.astimezone().isoformat(timespec="seconds"),
        "entry": [
            {"fullUrl": _url(str(resource["id"])), "resource": _without_nothing(resource)}
            for resource in (report, device, *observations)
        ],
    }


def _shared(finding: ReportedScore, part: str) -> Json:
    header = finding.source.read[0]
    return {
        "id": _id(finding, part),
        "meta": {"security": [_LABEL]},
        "identifier": [
            {
                "system": "urn:dicom:uid",
                "value": f"urn:oid:{finding.identity.instance_uid(Kind.DIAGNOSTIC_REPORT, part)}",
            }
        ],
        "status": _STATUS,
        "effectiveDateTime": _day(str(finding.source.first.get("StudyDate") or "")),
        "subject": {"type": "Patient", "identifier": {"value": header.patient or "unknown"}},
        "basedOn": [
            {
                "type": "ServiceRequest",
                "identifier": {
                    "type": {
                        "coding": [
                            {
                                "system": "http://terminology.hl7.org/CodeSystem/v2-0203",
                                "code": "ACSN",
                            }
                        ]
                    },
                    "value": header.accession,
                },
            }
        ]
        if header.accession
        else None,
    }


def _day(date: str) -> str | None:
    """Return a DICOM date as FHIR writes it; None where it is none."""
    try:
        return datetime.strptime(date, "%Y%m%d").date().isoformat()  # noqa: DTZ007
    except ValueError:
        return None


def _study(finding: ReportedScore) -> Json:
    uid = finding.source.read[0].study
    return {
        "type": "ImagingStudy",
        "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"},
    }


def _device(finding: ReportedScore) -> Json:
    model = finding.score.model
    return {
        "resourceType": "Device",
        "id": _id(finding, "device"),
        "identifier": [
            {"system": "urn:wardround:weights-sha256", "value": model.weights},
            {"system": "urn:wardround:configuration-sha256", "value": model.fingerprint},
        ],
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "version": [{"value": RELEASE}],
        "note": [{"text": RESEARCH}],
    }


def _quantities(finding: ReportedScore) -> Iterator[Json]:
    """Yield an Observation for each number; its interval and raw output are components."""
    for number, quantity in enumerate(finding.score.quantities):
        yield {
            **_observation(finding, f"quantity {number}", concept(quantity.code, quantity.meaning)),
            "valueQuantity": _measured(quantity.value, unit_of(quantity.unit)),
            "component": [*_components(quantity), *_finding(quantity)],
        }


def _components(quantity: Quantity) -> Iterator[Json]:
    for words, value in (
        ("Lower end of the interval", quantity.low),
        ("Upper end of the interval", quantity.high),
        ("Output of the network before calibration", quantity.raw),
    ):
        if value is not None:
            measured = _measured(value, unit_of(quantity.unit))
            yield {"code": _concept(own(words)), "valueQuantity": measured}
    if quantity.promise is not None:
        yield {
            "code": _concept(Own.HELD.value),
            "valueQuantity": _measured(quantity.promise, RATIO),
        }


def _finding(quantity: Quantity) -> Iterator[Json]:
    if quantity.finding is not None:
        value = {**_concept(concept(quantity.finding, quantity.label)), "text": quantity.label}
        yield {"code": {"text": "Finding"}, "valueCodeableConcept": value}


def _structures(finding: ReportedScore) -> Iterator[Json]:
    if finding.score.outlines is None:
        return
    given = finding.score.outlines.codes
    for number, region in enumerate(regions(finding.score.outlines, finding.source, None)):
        yield {
            **_observation(finding, f"region {number}", region.quantity),
            "valueQuantity": _measured(region.size, region.unit),
            "component": [_named(region.structure, given.get(region.structure))],
            **_resting_on(region),
        }


def _resting_on(region: Region) -> Json:
    """Return on which calibration a size in mm rests, where that has to be said."""
    one = region.calibration
    if one is None:
        return {}
    note = [{"text": RESEARCH}, {"text": one.sentence}]
    return {"method": _concept(own(one.method)), "note": note}


def _named(structure: str, code: CodedStructure | None) -> Json:
    named: Json = {"valueString": structure}
    if code is not None:
        named = {"valueCodeableConcept": {**_concept(concept(code, structure)), "text": structure}}
    return {"code": {"text": "Structure"}, **named}


def _observation(finding: ReportedScore, part: str, code: Code) -> Json:
    return {
        "resourceType": "Observation",
        **_shared(finding, part),
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                        "code": "imaging",
                    }
                ]
            }
        ],
        "code": _concept(code),
        "device": {"reference": _url(_id(finding, "device"))},
        "derivedFrom": [_study(finding)],
        "note": [{"text": RESEARCH}],
    }


def _concept(code: Code) -> Json:
    system = _SYSTEMS.get(code.scheme_designator, _OWN_SYSTEM)
    return {
        "coding": [{"system": system, "code": code.value, "display": code.meaning}],
        "text": code.meaning,
    }


def _measured(value: float, unit: Code) -> Json:
    return {"value": float(value), "unit": unit.meaning, "system": _UCUM, "code": unit.value}


def _id(finding: ReportedScore, part: str) -> str:
    """Return an id that follows from what is said, as the UIDs of the DICOM results do."""
    uid = finding.identity.instance_uid(Kind.DIAGNOSTIC_REPORT, part)
    return str(uuid.UUID(int=int(uid.removeprefix("2.25."))))


def _url(identifier: str) -> str:
    return f"urn:uuid:{identifier}"


def _without_nothing(resource: Json) -> Json:
    return {name: value for name, value in resource.items() if value is not None}
