"""Reports as FHIR R4 transactions, to a server that follows the standard and checks by schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.pacs.receivers.fhir_transaction import deliver_fhir
from client.pacs.sending.delivery import Delivered, State
from client.results.writing import Result, write_results
from client.site.oauth_section import OAuthClient
from client.site.results_section import FhirReceiver
from common.platform.errors import TrustRefused, Unreachable
from tests.client.fhir_hospital import PATIENTS, TOKEN, Hospital, fhir_hospital
from tests.client.pacs.receivers.test_hl7 import the_report
from tests.client.scores import outlined, volume
from tests.client.transport.authorization.authorization_server import (
    CLIENT,
    SECRET,
    authorization_server,
)

pytestmark = pytest.mark.processes


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    with fhir_hospital() as found:
        yield found


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return the_report(write_results(outlined(volume(tmp_path / "source")), tmp_path / "out"))


def to(hospital: Hospital, folder: Path, **changes: object) -> FhirReceiver:
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    return FhirReceiver.model_validate({"url": hospital.url, "token_file": token} | changes)


def sent(result: Result, receiver: FhirReceiver) -> Delivered:
    return deliver_fhir(result, receiver, pause=lambda _: None)


def counts(hospital: Hospital) -> dict[str, int]:
    return {kind: len(held) for kind, held in hospital.resources.items() if held}


def test_a_report_is_posted_once_and_read_back(
    hospital: Hospital, result: Result, tmp_path: Path
) -> None:
    receiver = to(hospital, tmp_path)
    found = sent(result, receiver)
    assert (found.state, found.detail) == (State.STORED, "")
    assert counts(hospital) == {"DiagnosticReport": 1, "Device": 1, "Observation": 2}
    (report,) = hospital.resources["DiagnosticReport"]
    references = [one["reference"] for one in report["result"]]  # type: ignore[attr-defined]
    assert references == ["Observation/o0", "Observation/o1"]
    assert hospital.resources["Observation"][0]["device"] == {"reference": "Device/d0"}
    assert sent(result, receiver).state is State.ALREADY_THERE
    assert len(hospital.posted) == 1


@pytest.mark.parametrize("cuts", [1, 2])
def test_an_answer_that_is_lost_makes_no_second_report(
    hospital: Hospital, result: Result, tmp_path: Path, cuts: int
) -> None:
    hospital.cut = cuts
    assert sent(result, to(hospital, tmp_path)).state is State.STORED
    assert len(hospital.posted) == 1, "it was looked for before it was posted again"
    assert counts(hospital) == {"DiagnosticReport": 1, "Device": 1, "Observation": 2}


def test_a_server_that_is_away_is_waited_for(
    hospital: Hospital, result: Result, tmp_path: Path
) -> None:
    receiver = to(hospital, tmp_path)
    hospital.faults = [(503, {})] * 99
    with pytest.raises(Unreachable, match="HTTP 503"):
        sent(result, receiver)
    hospital.faults = []
    assert sent(result, receiver).state is State.STORED
    with pytest.raises(TrustRefused, match="refuses our token"):
        sent(result, to(hospital, tmp_path, token_file=None))


def test_the_report_is_of_the_patient_who_has_the_identifier(
    hospital: Hospital, result: Result, tmp_path: Path
) -> None:
    receiver = to(hospital, tmp_path, patient_identifier=PATIENTS)
    failed = sent(result, receiver)
    assert failed.state is State.FAILED
    assert "has 0 Patients with this identifier" in failed.detail
    assert not hospital.posted
    hospital.patient("other")
    patient = hospital.patient("P1")
    assert sent(result, receiver).state is State.STORED
    subjects = {
        one["subject"]["reference"]  # type: ignore[index,call-overload]
        for kind in ("DiagnosticReport", "Observation")
        for one in hospital.resources[kind]
    }
    assert subjects == {patient}
    hospital.ignores_search = True  # it sends everybody: nobody else is taken for the patient
    hospital.resources["DiagnosticReport"] = []
    assert sent(result, receiver).state is State.STORED


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"resourceType": "Bundle", "type": "searchset"}, "no transaction-response"),
        (
            {
                "resourceType": "Bundle",
                "type": "transaction-response",
                "entry": [{"response": {"status": "422 Unprocessable"}}],
            },
            "with status '422 Unprocessable'",
        ),
        (
            {
                "resourceType": "Bundle",
                "type": "transaction-response",
                "entry": [{"response": {"status": "201 Created"}}],
            },
            "does not find it by its identifier",
        ),
    ],
)
def test_an_answer_that_does_not_say_that_all_was_taken_is_told(
    hospital: Hospital,
    result: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: dict[str, object],
    said: str,
) -> None:
    monkeypatch.setattr("tests.client.fhir_hospital.transact", lambda *_: json.dumps(body).encode())
    failed = sent(result, to(hospital, tmp_path))
    assert failed.state is State.FAILED
    assert said in failed.detail


def test_what_the_server_changes_and_what_it_refuses_is_told(
    hospital: Hospital, result: Result, tmp_path: Path
) -> None:
    receiver = to(hospital, tmp_path)
    hospital.faults = [(422, {})]
    # The first request, the search, meets the fault.
    failed = sent(result, receiver)
    assert failed.state is State.FAILED
    assert "HTTP 422" in failed.detail
    assert sent(result, receiver).state is State.STORED
    hospital.resources["DiagnosticReport"][0]["conclusion"] = "something else"
    changed = sent(result, receiver)
    assert (changed.state, changed.arrived) == (State.CHANGED, False)
    assert "differs in conclusion" in changed.detail


def test_tokens_by_client_credentials_open_the_server(
    hospital: Hospital, result: Result, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with authorization_server() as login:
        hospital.token_is_good = login.takes
        oauth = OAuthClient(token_url=login.url, client_id=CLIENT, secret_file=secret)
        receiver = FhirReceiver(url=hospital.url, oauth=oauth)
        assert sent(result, receiver).state is State.STORED
        assert login.given == ["token-1"]
        login.taken_back.add("token-1")
        assert sent(result, receiver).state is State.ALREADY_THERE
