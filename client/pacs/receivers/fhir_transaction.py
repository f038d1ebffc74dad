"""A report as one FHIR R4 transaction: all of it is taken, or nothing.

Guarantee, for crashes and broken connections at any moment: a report is looked for by its
identifier before it is posted, each time, and every resource is created only where the server has
none of its identifier (ifNoneExist). So it is there once, whether or not an answer arrived.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import urlencode

from client.outcomes.fhir_patient import escaped
from client.outcomes.fhir_server import FhirServer, Resource
from client.pacs.sending.delivery import Delivered, State
from client.results.writing import Result
from client.site.plain_text import shown
from client.site.results_section import FhirReceiver
from common.platform.errors import CohortError, Unreachable

_TRIES = 3
_PAUSE_SECONDS = 2.0
#: What a server may not change in a report that it keeps.
_KEPT = ("status", "conclusion", "effectiveDateTime", "code", "category", "imagingStudy")

Json = dict[str, object]


class _NotTaken(Exception):
    """Why the server does not take a report; in words."""


def deliver_fhir(
    result: Result, receiver: FhirReceiver, *, pause: Callable[[float], None] = time.sleep
) -> Delivered:
    """Bring a report to the server, and read it back.

    Raises Unreachable, TrustRefused or ConfigurationError where the server as a whole cannot be
    used; the same call then goes on where it ended.
    """
    bundle = cast("Json", json.loads(result.path.read_bytes()))
    where = f"FHIR {receiver.url}"
    try:
        with FhirServer(receiver, pause=pause) as server:
            state, unlike = _brought(bundle, receiver, server, pause)
    except (CohortError, _NotTaken) as problem:
        return Delivered(result=result, state=State.FAILED, detail=str(problem), where=where)
    if unlike:
        detail = f"It differs in {', '.join(unlike)}. Ask the server's admin which rule changes it."
        return Delivered(result=result, state=State.CHANGED, detail=detail, where=where)
    return Delivered(result=result, state=state, where=where)


def _brought(
    bundle: Json, receiver: FhirReceiver, server: FhirServer, pause: Callable[[float], None]
) -> tuple[State, list[str]]:
    """Return how a report came to be there, and in what the server's copy differs."""
    report = _report_in(bundle)
    for attempt in range(_TRIES):
        held = _held(server, report)
        if held is not None:
            state = State.STORED if attempt else State.ALREADY_THERE
            return state, _unlike(report, held)
        try:
            _check_answer(server.transact(transaction(bundle, _patient(bundle, receiver, server))))
            break
        except Unreachable:
            # Whether it came through is not known: the next look says.
            if attempt + 1 == _TRIES:
                raise
            pause(_PAUSE_SECONDS * 2**attempt)
    held = _held(server, report)
    if held is None:
        message = (
            "The server said that it stored the report, but does not find it by its identifier. It "
            "may file it later: send again, and ask its admin if it stays away."
        )
        raise _NotTaken(message)
    return State.STORED, _unlike(report, held)


def transaction(bundle: Json, patient: str | None) -> Json:
    """Return a report's Bundle as a transaction; `patient` is the Patient that it is of."""
    from fhir.resources.R4B.bundle import Bundle

    found = copy.deepcopy(bundle)
    found["type"] = "transaction"
    found.pop("timestamp", None)
    for entry in cast("list[Json]", found["entry"]):
        resource = cast("Json", entry["resource"])
        system, value = _identifier(resource)
        entry["request"] = {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": urlencode({"identifier": f"{escaped(system)}|{escaped(value)}"}),
        }
        # The server gives ids of its own; references are by fullUrl.
        resource.pop("id", None)
        if patient is not None and "subject" in resource:
            resource["subject"] = {**cast("Json", resource["subject"]), "reference": patient}
    Bundle.model_validate(found)
    return found


def _patient(bundle: Json, receiver: FhirReceiver, server: FhirServer) -> str | None:
    """Return the one Patient that the PatientID is of, where its system is known."""
    system = receiver.patient_identifier
    if system is None:
        return None
    subject = cast("Mapping[str, Mapping[str, str]]", _report_in(bundle)["subject"])
    name = subject["identifier"]["value"]
    asked = [("identifier", f"{escaped(system)}|{escaped(name)}")]
    found = [one for one in server.search("Patient", asked) if _has(one, system, name)]
    if len(found) != 1:
        message = f"The server has {len(found)} Patients with this identifier of {system}, not one."
        raise _NotTaken(message)
    return f"Patient/{found[0].get('id')}"


def _report_in(bundle: Json) -> Json:
    resources = [cast("Json", e["resource"]) for e in cast("list[Json]", bundle["entry"])]
    return next(one for one in resources if one["resourceType"] == "DiagnosticReport")


def _identifier(resource: Resource) -> tuple[str, str]:
    first = cast("list[Mapping[str, str]]", resource["identifier"])[0]
    return first["system"], first["value"]


def _has(resource: Resource, system: str, value: str) -> bool:
    """Return whether a resource has an identifier: some servers ignore what they are asked."""
    given = resource.get("identifier")
    listed = given if isinstance(given, list) else ()
    wanted = (system, value)
    return any((i.get("system"), i.get("value")) == wanted for i in listed if isinstance(i, dict))


def _held(server: FhirServer, report: Json) -> Resource | None:
    system, value = _identifier(report)
    asked = [("identifier", f"{escaped(system)}|{escaped(value)}")]
    found = (one for one in server.search("DiagnosticReport", asked) if _has(one, system, value))
    return next(found, None)


def _unlike(report: Json, held: Resource) -> list[str]:
    results = cast("list[object]", report["result"]), held.get("result")
    unlike = [name for name in _KEPT if report.get(name) != held.get(name)]
    if not isinstance(results[1], list) or len(results[0]) != len(results[1]):
        unlike.append("result")
    return unlike


def _check_answer(answer: Resource) -> None:
    """Raise where not every resource was taken (FHIR R4 3.1.0.11.2)."""
    entries = answer.get("entry")
    if answer.get("type") != "transaction-response" or not isinstance(entries, list):
        message = "The server answers the transaction with no transaction-response."
        raise _NotTaken(message)
    for entry in entries:
        response = entry.get("response") if isinstance(entry, dict) else None
        status = str(response.get("status", "")) if isinstance(response, dict) else ""
        if not status.startswith("2"):
            message = f"The server took a part of the report with status {shown(status)[:20]!r}."
            raise _NotTaken(message)
