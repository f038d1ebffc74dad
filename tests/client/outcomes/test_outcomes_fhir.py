from __future__ import annotations

import csv
import email.utils
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from client.labels.label_table import read_labels
from client.outcomes.fhir_records import FhirRecords
from client.outcomes.fhir_server import FhirServer
from client.outcomes.outcome_table import OutcomeTable, build
from client.outcomes.outcomes_yaml import OutcomesPlan
from common.platform.errors import CohortError, ConfigurationError, TrustRefused, Unreachable
from tests.client.dicom_files import image, noise, save
from tests.client.fhir_hospital import (
    ACCESSIONS,
    LOINC,
    PATIENTS,
    SNOMED,
    TOKEN,
    Hospital,
    fhir_hospital,
)
from tests.client.terminals import Site

pytestmark = pytest.mark.processes

DIABETES, STROKE, CRP = "44054006", "230690007", "1988-5"


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    with fhir_hospital() as found:
        yield found


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def plan_of(hospital: Hospital, token: Path | None, **changed: object) -> OutcomesPlan:
    content: dict[str, object] = {
        "fhir": {"url": hospital.url, "token_file": token, "page": 3},
        "patient_identifier": PATIENTS,
        "key": "PatientID",
        "who": "everybody",
        "columns": {
            "age": {"patient": "age"},
            "sex": {"patient": "sex"},
            "diabetes": {"condition": [f"{SNOMED}|{DIABETES}"]},
            "crp": {"observation": [f"{LOINC}|{CRP}"], "unit": "mg/L", "within_days": 60},
        },
        "outcome": {"event": "died", "time": "days", "death": True, "censored": "2024-12-31"},
        "none_expected": ["Condition", "Observation"],
        **changed,
    }
    return OutcomesPlan.model_validate(content)


def fetched(
    plan: OutcomesPlan, patients: frozenset[str] | None = None, pauses: list[float] | None = None
) -> OutcomeTable:
    assert plan.fhir is not None
    waited: list[float] = [] if pauses is None else pauses
    with FhirServer(plan.fhir, plan.fhir.page, pause=waited.append) as server:
        return build(plan, FhirRecords(plan, server).records(patients))


def two_patients(hospital: Hospital) -> None:
    first = hospital.patient(
        "P1", gender="female", birthDate="1950-01-01", deceasedDateTime="2024-03-01T08:00:00+01:00"
    )
    second = hospital.patient("P2", gender="male", birthDate="1960", deceasedBoolean=False)
    for person, uid in ((first, "1.2.1"), (second, "1.2.2")):
        hospital.study(person, uid, "2024-01-31T23:30:00Z", f"A{uid}")
    hospital.diagnosis(first, DIABETES, "2010-05-05")
    hospital.diagnosis(second, DIABETES, "2024-02-02")  # after the origin
    hospital.value(first, CRP, "2024-01-30", 5.5)
    hospital.value(first, CRP, "2024-01-20", 9.0)
    hospital.value(first, CRP, "2024-02-20", 99.0)  # after the origin
    hospital.value(second, CRP, "2024-01-30", 0.75, "mg/dL")


def test_patients_diagnoses_values_and_times_become_a_table(
    hospital: Hospital, token: Path
) -> None:
    two_patients(hospital)
    found = fetched(plan_of(hospital, token))
    assert found.columns == ("PatientID", "age", "sex", "diabetes", "crp", "died", "days")
    assert found.rows == (
        ("P1", "74.1", "F", "1", "5.5", "1", "30"),
        ("P2", "63.6", "M", "0", "7.5", "0", "335"),
    )
    assert not found.left_out


def test_rows_may_stand_for_studies_by_uid_or_accession_number(
    hospital: Hospital, token: Path
) -> None:
    two_patients(hospital)
    hospital.study("Patient/p0", "1.2.3", "2024-02-10", "")
    found = fetched(plan_of(hospital, token, key="StudyInstanceUID"))
    assert [row[:2] for row in found.rows] == [("P1", "1.2.1"), ("P1", "1.2.3"), ("P2", "1.2.2")]
    assert [row[-1] for row in found.rows] == ["30", "20", "335"]
    assert [row[5] for row in found.rows] == ["5.5", "5.5", "7.5"]
    by_accession = plan_of(hospital, token, key="AccessionNumber", accession_identifier=ACCESSIONS)
    found = fetched(by_accession)
    assert [row[:2] for row in found.rows] == [("P1", "A1.2.1"), ("P2", "A1.2.2")]
    assert [one.why for one in found.left_out] == ["it has no AccessionNumber"]


def test_an_outcome_may_be_a_diagnosis_and_watching_ends_at_the_last_contact(
    hospital: Hospital, token: Path
) -> None:
    persons = [hospital.patient(f"P{n}") for n in range(5)]
    for number, person in enumerate(persons):
        hospital.study(person, f"1.2.{number}", "2024-01-01")
        hospital.value(person, CRP, "2024-01-01", 1.0)
    hospital.diagnosis(persons[0], STROKE, "2024-01-11")
    hospital.diagnosis(persons[0], STROKE, "2024-01-21")
    hospital.value(persons[1], CRP, "2024-04-10", 2.0)
    hospital.diagnosis(persons[2], STROKE, "2023-06-01")
    hospital.diagnosis(persons[3], STROKE, "2024-05-01", "refuted")
    hospital.diagnosis(persons[4], STROKE, "2024-05-01", "entered-in-error")
    outcome = {
        "event": "stroke",
        "time": "months",
        "unit": "mo",
        "condition": [f"{SNOMED}|{STROKE}"],
        "censored": "last_contact",
    }
    found = fetched(
        plan_of(
            hospital,
            token,
            outcome=outcome,
            columns={"crp": {"observation": [f"{LOINC}|{CRP}"], "take": "first"}},
        )
    )
    assert [(row[0], *row[-2:]) for row in found.rows] == [
        ("P0", "1", "0.328542"),
        ("P1", "0", "3.28542"),
        ("P3", "0", "0"),
        ("P4", "0", "0"),
    ]
    assert [(one.what, one.why) for one in found.left_out] == [
        ("patient P2", "had the outcome on 2023-06-01, before the origin 2024-01-01")
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"deceasedBoolean": True}, "is dead, and nobody says since when"),
        ({"deceasedDateTime": "2023-01-01"}, "died on 2023-01-01, before the origin 2024-01-31"),
        ({"deceasedDateTime": "2024-03"}, "the date 2024-03 has no day"),
    ],
)
def test_deaths_that_give_no_time_are_listed(
    hospital: Hospital, token: Path, content: dict[str, object], why: str
) -> None:
    person = hospital.patient("P1", **content)
    hospital.study(person, "1.2.1", "2024-01-31")
    found = fetched(plan_of(hospital, token))
    assert not found.rows
    assert [one.why for one in found.left_out][:1] == [why]


def test_codes_that_fhir_does_not_have_are_refused_though_its_schema_takes_them(
    hospital: Hospital, token: Path
) -> None:
    two_patients(hospital)
    hospital.value("Patient/p0", CRP, "2024-01-31", 1.0, status="bogus")
    hospital.diagnosis("Patient/p1", DIABETES, "2001-01-01", "perhaps")
    hospital.add("ImagingStudy", status="ready", subject={"reference": "Patient/p0"})
    hospital.patient("P3", gender="w")
    found = fetched(plan_of(hospital, token))
    assert [row[4] for row in found.rows] == ["5.5", "7.5"]
    assert {one.what: one.why for one in found.left_out} == {
        "Observation/o4": "status 'bogus' is no code that FHIR has for it",
        "Condition/c2": "verificationStatus 'perhaps' is no code that FHIR has for it",
        "ImagingStudy/i2": "status 'ready' is no code that FHIR has for it",
        "Patient/p2": "gender 'w' is none of male, female, other, unknown",
    }


def test_what_is_no_fhir_or_not_final_or_has_no_exact_value_is_listed_and_stops_nothing(
    hospital: Hospital, token: Path
) -> None:
    two_patients(hospital)
    about = {
        "subject": {"reference": "Patient/p0"},
        "effectiveDateTime": "2024-01-31",
        "code": {"coding": [{"system": LOINC, "code": CRP}]},
    }
    quantity = {"value": 3, "comparator": "<", "unit": "mg/L"}
    hospital.add("Observation", broken=True, **about)
    hospital.add("Observation", status="preliminary", valueString="1", **about)
    hospital.add("Observation", status="final", valueQuantity=quantity, **about)
    hospital.add("Observation", status="final", **about)
    hospital.value("Patient/p0", CRP, "2024-01-31", 3.0, "mmol/L")
    found = fetched(plan_of(hospital, token))
    assert [row[4] for row in found.rows] == ["5.5", "7.5"]
    whys = [one.why for one in found.left_out]
    assert "is not FHIR R4: status" in whys[0]
    assert whys[1:] == [
        "is preliminary, expected final, amended or corrected",
        "has no exact value (<)",
        "has no value",
        "3.0 mmol/L, expected mg/L",
    ]


def test_only_patients_who_were_asked_for_are_taken_from_a_server_that_ignores_the_search(
    hospital: Hospital, token: Path
) -> None:
    two_patients(hospital)
    hospital.value("Patient/p0", "other", "2024-01-31", 4.0)
    hospital.value("Patient/p1", CRP, "2024-01-31", 4.0, status="bogus")
    for ignores in (False, True):
        hospital.ignores_search = ignores
        found = fetched(plan_of(hospital, token), frozenset({"P1"}))
        assert [row[:5] for row in found.rows] == [("P1", "74.1", "F", "1", "5.5")]
        # The server sent the other patient, too; of their values nothing is told.
        assert not [one for one in found.left_out if "Observation" in one.what]


def test_patients_are_asked_for_in_batches_and_every_page_is_read(
    hospital: Hospital, token: Path
) -> None:
    for number in range(45):
        person = hospital.patient(f"P{number:02}")
        hospital.study(person, f"1.2.{number}", "2024-01-31")
    found = fetched(plan_of(hospital, token), frozenset(f"P{n:02}" for n in range(45)))
    assert len(found.rows) == 45
    patients = [asked for asked in hospital.asked if asked.startswith("/r4/Patient?identifier")]
    assert len(patients) == 7 + 7 + 2  # pages of three in batches of 20, 20 and 5
    linked = [asked for asked in hospital.asked if asked.startswith("/r4/Patient?link=")]
    assert len(linked) == 3
    assert all(len(asked) < 4000 for asked in hospital.asked)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_overloaded_server_is_asked_again_after_growing_pauses(
    hospital: Hospital, token: Path, status: int
) -> None:
    two_patients(hospital)
    hospital.faults = [(status, {})] * 3
    pauses: list[float] = []
    assert len(fetched(plan_of(hospital, token), pauses=pauses).rows) == 2
    assert pauses == [1.0, 2.0, 4.0]


def test_retry_after_is_kept_to_as_seconds_and_as_a_moment(hospital: Hospital, token: Path) -> None:
    two_patients(hospital)
    moment = email.utils.formatdate(time.time() + 40, usegmt=True)
    hospital.faults = [
        (429, {"Retry-After": "17"}),
        (503, {"Retry-After": moment}),
        (429, {"Retry-After": "999999"}),
        (429, {"Retry-After": "soon"}),
    ]
    pauses: list[float] = []
    assert len(fetched(plan_of(hospital, token), pauses=pauses).rows) == 2
    assert pauses[0] == 17
    assert 35 < pauses[1] <= 41
    assert pauses[2:] == [120.0, 8.0]


def test_a_server_that_never_recovers_or_is_not_there_is_told_as_such(
    hospital: Hospital, token: Path
) -> None:
    hospital.faults = [(503, {})] * 5
    with pytest.raises(Unreachable, match=r"HTTP 503, 5 times"):
        fetched(plan_of(hospital, token))
    plan = plan_of(hospital, token, fhir={"url": "http://127.0.0.1:9/r4", "token_file": token})
    with pytest.raises(Unreachable, match="does not answer: ConnectError"):
        fetched(plan)


def test_a_wrong_token_is_told_at_once_and_one_that_others_can_read_is_not_sent(
    hospital: Hospital, token: Path
) -> None:
    pauses: list[float] = []
    hospital.faults = [(403, {})]
    with pytest.raises(TrustRefused, match=r"HTTP 403") as caught:
        fetched(plan_of(hospital, token), pauses=pauses)
    assert "\x1b" not in str(caught.value)
    with pytest.raises(TrustRefused, match=r"Give it one with fhir\.token_file"):
        fetched(plan_of(hospital, None), pauses=pauses)
    assert not pauses
    asked = len(hospital.asked)
    token.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        fetched(plan_of(hospital, token))
    token.chmod(0o600)
    abroad = {"url": "http://fhir.example.org/r4", "token_file": token}
    with pytest.raises(ConfigurationError, match="in the clear"):
        fetched(plan_of(hospital, token, fhir=abroad))
    assert len(hospital.asked) == asked


@pytest.mark.parametrize(
    "astray",
    [
        "http://127.0.0.1:{other}/r4/Patient?_page=3",
        "http://localhost:{port}/r4/Patient?_page=3",
        "https://127.0.0.1:{port}/r4/Patient?_page=3",
        "http://127.0.0.1:{port}@127.0.0.1:{other}/r4/Patient",
        "http://127.0.0.1@127.0.0.1:{other}/r4/Patient",
        "//127.0.0.1:{other}/r4/Patient",
        "http://user:pass@127.0.0.1:{port}/r4/Patient?_page=3",
        "file:///etc/passwd",
        "http://[::1/",
    ],
)
def test_the_token_goes_to_no_other_server_whatever_the_next_page_is(
    hospital: Hospital, token: Path, astray: str
) -> None:
    with fhir_hospital() as other:
        for number in range(9):
            hospital.patient(f"P{number}")
        link = astray.format(port=hospital.port, other=other.port)
        hospital.next_link = lambda _link: link
        with pytest.raises(TrustRefused, match="another server; nothing was sent"):
            fetched(plan_of(hospital, token))
        assert not other.asked
    assert set(hospital.tokens) == {f"Bearer {TOKEN}"}


def test_the_token_follows_no_redirect(hospital: Hospital, token: Path) -> None:
    with fhir_hospital() as other:
        hospital.faults = [(302, {"Location": f"{other.url}/metadata"})]
        with pytest.raises(TrustRefused, match="sends us on to"):
            fetched(plan_of(hospital, token))
        assert not other.asked


def test_relative_next_pages_are_followed_and_pages_in_a_circle_are_not(
    hospital: Hospital, token: Path
) -> None:
    for number in range(9):
        hospital.study(hospital.patient(f"P{number}"), f"1.{number}", "2024-01-31")
    hospital.next_link = lambda link: link.removeprefix(hospital.url.removesuffix("/r4"))
    assert len(fetched(plan_of(hospital, token)).rows) == 9
    first = hospital.asked[1]
    hospital.next_link = lambda _link: f"http://127.0.0.1:{hospital.port}{first}"
    with pytest.raises(CohortError, match="in a circle"):
        fetched(plan_of(hospital, token))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "no FHIR JSON"),
        (b"[]", "no FHIR JSON"),
        (b"[" * 100_000, "no FHIR JSON"),
        (b'{"resourceType": "CapabilityStatement", "fhirVersion": "3.0.2"}', "says 3.0.2"),
        (b'{"fhirVersion": "4.0.1", "resourceType": "Patient"}', "no searchset Bundle"),
        (
            b'{"fhirVersion": "4.0.1", "resourceType": "Bundle", "type": "searchset", "entry": 3}',
            "no searchset Bundle",
        ),
    ],
)
def test_an_answer_that_is_no_fhir_says_so(
    hospital: Hospital, token: Path, body: bytes, message: str
) -> None:
    hospital.body = body
    with pytest.raises(CohortError, match=message):
        fetched(plan_of(hospital, token))


def test_an_address_that_is_no_fhir_root_says_so(hospital: Hospital, token: Path) -> None:
    hospital.faults = [(404, {})]
    with pytest.raises(ConfigurationError, match="no FHIR root"):
        fetched(plan_of(hospital, token))
    hospital.faults = [(200, {}), (400, {})][1:]
    with pytest.raises(CohortError, match="refuses the request"):
        fetched(plan_of(hospital, token))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sql": {"url_file": "/x"}}, "give one source"),
        ({"patient_identifier": None}, "fhir needs patient_identifier"),
        ({"key": "AccessionNumber"}, "needs accession_identifier"),
        ({"origin": "condition"}, "belong together"),
        ({"origin": "2024-13-01"}, "expected a date"),
        ({"columns": {"died": {"patient": "age"}}}, "named twice"),
        ({"columns": {"x": {"patient": "age", "condition": ["a"]}}}, "give one of"),
        ({"columns": {"x": {"patient": "age", "unit": "a"}}}, "go with observation"),
        ({"outcome": {"event": "e", "time": "t", "censored": "last_contact"}}, "either condition"),
    ],
)
def test_a_plan_that_does_not_fit_together_is_refused(
    hospital: Hospital, token: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(hospital, token, **changed)


def test_the_command_writes_a_table_that_a_run_can_read_for_whose_images_are_here(
    hospital: Hospital, token: Path, tmp_path: Path
) -> None:
    two_patients(hospital)
    third = hospital.patient("P3")
    hospital.study(third, "1.2.9", "2024-01-31")
    hospital.value("Patient/p0", CRP, "2024-01-31", 1.0, status="bogus")
    site = Site(tmp_path)
    site.set_up()
    for patient in ("P1", "P2"):
        save(site.data / f"{patient}.dcm", image(noise(16, 16), patient))
    plan = plan_of(hospital, token, who="images").model_dump(mode="json")
    wanted = tmp_path / "outcomes.yaml"
    wanted.write_text(yaml.safe_dump({k: v for k, v in plan.items() if v is not None}))
    ended = site.types("outcomes", wanted)
    assert ended.status == 0, ended.text
    assert "Asking for 2 patients." in ended.out
    assert "2 rows of 2 patients" in ended.out
    assert "Observation/o4" in ended.out
    path = site.home.folder / "labels.csv"
    assert path.stat().st_mode & 0o777 == 0o600
    labels = read_labels(path, ("died", "days"), with_images=True)
    assert [row["PatientID"] for row in labels.rows] == ["P1", "P2"]
    assert not labels.unusable
    assert labels.schema.columns["crp"].unit == "mg/L"
    assert labels.schema.columns["days"].unit == "d"
    assert not any("P3" in asked for asked in hospital.asked)
    site.types("withdraw", "P1", "--yes")
    ended = site.types("outcomes", wanted)
    with path.open(newline="") as file:
        assert [row["PatientID"] for row in csv.DictReader(file)] == ["P2"]
    assert f"The table before it is {path}.before" in ended.out


def test_the_command_leaves_the_table_that_is_there_when_the_source_fails(
    hospital: Hospital, token: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.set_up()
    plan = plan_of(hospital, token).model_dump(mode="json")
    wanted, out = tmp_path / "outcomes.yaml", tmp_path / "labels.csv"
    wanted.write_text(yaml.safe_dump({k: v for k, v in plan.items() if v is not None}))
    out.write_text("PatientID,died\n")
    hospital.faults = [(401, {})]
    assert site.types("outcomes", wanted, "--out", out).status == 6
    ended = site.types("outcomes", wanted, "--out", out)
    assert ended.status == 3
    assert "Nobody could be put into the table" in ended.text
    assert out.read_text() == "PatientID,died\n"
    assert site.types("outcomes", wanted, "--out", tmp_path / "labels.xlsx").status == 2
    assert site.types("outcomes", tmp_path / "none.yaml").status == 2
    wanted.write_text(yaml.safe_dump({"key": "PatientId"}))
    ended = site.types("outcomes", wanted)
    assert ended.status == 2
    assert "key" in ended.text


def test_a_server_that_wants_references_is_asked_with_them(hospital: Hospital, token: Path) -> None:
    two_patients(hospital)
    hospital.wants_references = True
    found = fetched(plan_of(hospital, token, none_expected=[]), frozenset({"P1", "P2"}))
    assert found.rows == (
        ("P1", "74.1", "F", "1", "5.5", "1", "30"),
        ("P2", "63.6", "M", "0", "7.5", "0", "335"),
    )


@pytest.mark.parametrize("everybody", [True, False])
def test_a_resource_that_nobody_has_is_asked_about_and_not_taken_for_health(
    hospital: Hospital, token: Path, *, everybody: bool
) -> None:
    two_patients(hospital)
    hospital.resources["Condition"] = []
    hospital.diagnosis("Patient/p0", "other", "2010-05-05")
    whom = None if everybody else frozenset({"P1", "P2"})
    with pytest.raises(CohortError, match=r"no Condition of \S+44054006 for any of 2 patients"):
        fetched(plan_of(hospital, token, none_expected=[]), whom)
    allowed = fetched(plan_of(hospital, token, none_expected=["Condition"]), whom)
    assert [row[3] for row in allowed.rows] == ["0", "0"]
    # One that was refuted says that the server knows the code.
    hospital.diagnosis("Patient/p0", DIABETES, "2010-05-05", "refuted")
    assert [row[3] for row in fetched(plan_of(hospital, token, none_expected=[]), whom).rows] == [
        "0",
        "0",
    ]


def test_a_parameter_that_the_server_passes_over_is_named(hospital: Hospital, token: Path) -> None:
    two_patients(hospital)
    hospital.value("Patient/p0", "other", "2024-01-31", 4.0)
    hospital.ignores = frozenset({"code"})
    found = fetched(plan_of(hospital, token, none_expected=[]), frozenset({"P1", "P2"}))
    assert [row[3:5] for row in found.rows] == [("1", "5.5"), ("0", "7.5")]
    assert [(one.what, one.why) for one in found.left_out] == [
        ("the server", "does not search Condition by code"),
        ("the server", "does not search Observation by code"),
    ]
    hospital.resources["Condition"] = []
    with pytest.raises(CohortError, match="says that it does not search it by code"):
        fetched(plan_of(hospital, token, none_expected=[]))
    hospital.says_self = False  # it does not say, so nothing is told of it
    assert not fetched(plan_of(hospital, token)).left_out
