"""A small FHIR R4 server on loopback: search by code, patient and identifier, pages, faults.

What it holds is checked by fhir.resources when it is put there, but for what a test breaks on
purpose. `faults` are served first, one a request; `next_link` leads astray.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.condition import Condition
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.patient import Patient

KINDS = {
    "Patient": Patient,
    "Condition": Condition,
    "Observation": Observation,
    "ImagingStudy": ImagingStudy,
    "Device": Device,
    "DiagnosticReport": DiagnosticReport,
}
TOKEN = "token-of-the-site"  # noqa: S105 - of this fixture
PATIENTS, ACCESSIONS = "urn:oid:1.2.3.4", "urn:oid:1.2.3.5"
LOINC, SNOMED, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"

Resource = dict[str, object]


@dataclass
class Hospital:
    """What the server holds, what it was asked, and how it misbehaves."""

    resources: dict[str, list[Resource]] = field(default_factory=dict)
    port: int = 0
    asked: list[str] = field(default_factory=list)  # path and query of each request
    tokens: list[str] = field(default_factory=list)  # Authorization of each request
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    next_link: Callable[[str], str] = lambda link: link
    ignores_search: bool = False
    ignores: frozenset[str] = frozenset()  # parameters that it passes over, and says so
    says_self: bool = True
    wants_references: bool = False  # Patient/ID in place of ID
    posted: list[Resource] = field(default_factory=list)  # transactions
    cut: int = 0  # so many transactions are carried out without an answer
    token_is_good: Callable[[str], bool] = lambda given: given == f"Bearer {TOKEN}"
    version: str = "4.0.1"
    body: bytes | None = None  # in place of any answer
    broken: bool = False  # holds what is no FHIR

    @property
    def url(self) -> str:
        """The server's root."""
        return f"http://127.0.0.1:{self.port}/r4"

    def add(self, kind: str, *, broken: bool = False, **content: object) -> Resource:
        """Put a resource there; one that is not broken on purpose must be FHIR."""
        held = self.resources.setdefault(kind, [])
        key = f"{kind[0].lower()}{len(held)}"
        resource: Resource = {"resourceType": kind, "id": key, **content}
        self.broken |= broken
        if not broken:
            KINDS[kind].model_validate(resource)
        held.append(resource)
        return resource

    def patient(self, name: str, **content: object) -> str:
        """Put a patient there and return how others refer to them."""
        identifier = [
            {"system": "urn:other", "value": f"x{name}"},
            {"system": PATIENTS, "value": name},
        ]
        return f"Patient/{self.add('Patient', identifier=identifier, **content)['id']}"

    def study(self, patient: str, uid: str, started: str, accession: str = "") -> None:
        """Put an imaging study there."""
        identifier = [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]
        if accession:
            identifier.append({"system": ACCESSIONS, "value": accession})
        self.add(
            "ImagingStudy",
            status="available",
            subject={"reference": patient},
            started=started,
            identifier=identifier,
        )

    def diagnosis(self, patient: str, code: str, onset: str, status: str = "confirmed") -> None:
        """Put a condition there."""
        system = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
        self.add(
            "Condition",
            subject={"reference": patient},
            onsetDateTime=onset,
            code={"coding": [{"system": SNOMED, "code": code}]},
            verificationStatus={"coding": [{"system": system, "code": status}]},
        )

    def value(
        self,
        patient: str,
        code: str,
        taken: str,
        value: float,
        unit: str = "mg/L",
        status: str = "final",
    ) -> None:
        """Put an observation there."""
        self.add(
            "Observation",
            status=status,
            subject={"reference": patient},
            effectiveDateTime=taken,
            code={"coding": [{"system": LOINC, "code": code}]},
            valueQuantity={"value": value, "unit": unit, "system": UCUM, "code": unit},
        )

    def found(self, kind: str, query: dict[str, list[str]]) -> list[Resource]:
        """Return what a search matches."""
        held = self.resources.get(kind, [])
        if self.ignores_search:
            return held
        query = {name: values for name, values in query.items() if name not in self.ignores}
        if self.wants_references and "patient" in query:
            wanted = query["patient"][0].split(",")
            known = [one.removeprefix("Patient/") for one in wanted if "/" in one]
            query = query | {"patient": [",".join(known) or "nobody"]}
        elif "patient" in query:
            query = query | {"patient": [query["patient"][0].replace("Patient/", "")]}
        return [resource for resource in held if _matches(resource, query)]


def _matches(resource: Resource, query: dict[str, list[str]]) -> bool:
    text = json.loads(json.dumps(resource))
    if "code" in query:
        codings = {f"{c.get('system')}|{c['code']}" for c in text["code"]["coding"]}
        if not codings & set(query["code"][0].split(",")):
            return False
    if "patient" in query:
        who = text["subject"]["reference"].removeprefix("Patient/")
        if who not in query["patient"][0].split(","):
            return False
    if not _links_match(text, query):
        return False
    if "_id" in query and text["id"] not in query["_id"][0].split(","):
        return False
    if "identifier" in query:
        held = {f"{i['system']}|{i['value']}" for i in text.get("identifier", ())}
        held |= {i["value"] for i in text.get("identifier", ())}
        wanted = query["identifier"][0].split(",")
        return any(h == w or (w.endswith("|") and h.startswith(w)) for h in held for w in wanted)
    return True


def _links_match(text: Resource, query: dict[str, list[str]]) -> bool:
    links = text.get("link", ())
    assert isinstance(links, list | tuple)
    others = {link["other"].get("reference") for link in links}
    asked = set(query["link"][0].split(",")) if "link" in query else others
    if {"link", "link:missing"} & set(query) and not others & asked:
        return False
    named = [link["other"].get("identifier", {}) for link in links]
    tokens = {f"{one.get('system')}|{one.get('value')}" for one in named}
    tokens |= {str(one.get("value")) for one in named}
    wanted = query.get("link:identifier")
    return wanted is None or bool(tokens & set(wanted[0].split(",")))


@contextmanager
def fhir_hospital() -> Iterator[Hospital]:
    """Serve an empty hospital on a free port of 127.0.0.1."""
    hospital = Hospital()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            hospital.tokens.append(self.headers.get("Authorization", ""))
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            if hospital.faults:
                status, headers, body = answer(hospital, self.path, "")
            elif not hospital.token_is_good(hospital.tokens[-1]):
                status, headers, body = 401, {}, b"{}"
            else:
                status, headers, body = 200, {}, transact(hospital, json.loads(sent))
            if hospital.cut:
                hospital.cut -= 1
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            hospital.asked.append(self.path)
            hospital.tokens.append(self.headers.get("Authorization", ""))
            status, headers, body = answer(hospital, self.path, hospital.tokens[-1])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    hospital.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hospital
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def transact(hospital: Hospital, bundle: Resource) -> bytes:
    """Carry out a transaction of conditional creates (FHIR R4 3.1.0.11.2), and return the answer.

    As the standard has it: an entry whose ifNoneExist matches one resource is that resource, and
    references to a fullUrl become references to what its entry became.
    """
    Bundle.model_validate(bundle)
    assert bundle["type"] == "transaction"
    hospital.posted.append(bundle)
    became, states = {}, []
    text = json.loads(json.dumps(bundle))
    for entry in text["entry"]:
        request, resource = entry["request"], entry["resource"]
        assert (request["method"], request["url"]) == ("POST", resource["resourceType"])
        kind = resource["resourceType"]
        query = parse_qs(request["ifNoneExist"])
        held = [r for r in hospital.resources.get(kind, []) if _matches(r, query)]
        assert len(held) < 2
        if not held:
            hospital.add(kind, **{k: v for k, v in resource.items() if k != "resourceType"})
            held = hospital.resources[kind][-1:]
        became[entry["fullUrl"]] = f"{kind}/{held[0]['id']}"
        states.append("200 OK" if held[0] is not hospital.resources[kind][-1] else "201 Created")
    for kind, held in hospital.resources.items():
        said = json.dumps(held)
        for full, reference in became.items():
            said = said.replace(f'"{full}"', f'"{reference}"')
        hospital.resources[kind] = json.loads(said)
    entries = [{"response": {"status": state}} for state in states]
    answered = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
    return json.dumps(answered).encode()


def answer(hospital: Hospital, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer."""
    if hospital.faults:
        status, headers = hospital.faults.pop(0)
        issue = {"severity": "error", "code": "exception", "diagnostics": "a \x1b[31m fault"}
        content = {"resourceType": "OperationOutcome", "issue": [issue]}
        return status, headers, json.dumps(content).encode()
    if hospital.body is not None:
        return 200, {}, hospital.body
    if not hospital.token_is_good(token):
        return 401, {}, b"{}"
    parts = urlsplit(path)
    kind = parts.path.rpartition("/")[2]
    if kind == "metadata":
        statement = {"resourceType": "CapabilityStatement", "fhirVersion": hospital.version}
        return 200, {}, json.dumps(statement).encode()
    if kind not in KINDS:
        return 404, {}, b"{}"
    query = parse_qs(parts.query)
    start, count = int(query.get("_page", ["0"])[0]), int(query["_count"][0])
    found = hospital.found(kind, query)
    used = {} if hospital.ignores_search else {k: v[0] for k, v in query.items()}
    used = {name: value for name, value in used.items() if name not in hospital.ignores}
    links = [{"relation": "self", "url": f"{hospital.url}/{kind}?{urlencode(used)}"}]
    if not hospital.says_self:
        links = []
    if start + count < len(found):
        following = {k: v[0] for k, v in query.items()} | {"_page": str(start + count)}
        link = f"{hospital.url}/{kind}?{urlencode(following)}"
        links.append({"relation": "next", "url": hospital.next_link(link)})
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(found),
        "link": links,
        "entry": [
            {"resource": one, "search": {"mode": "match"}} for one in found[start : start + count]
        ],
    }
    if not found:
        del bundle["entry"]
    if not hospital.broken:
        Bundle.model_validate(bundle)
    return 200, {"Content-Type": "application/fhir+json"}, json.dumps(bundle).encode()
