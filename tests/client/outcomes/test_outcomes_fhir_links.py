"""Patient.link of FHIR R4: linked records are one person, with what is known of any of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.outcomes.outcome_table import OutcomeTable
from tests.client.fhir_hospital import Hospital, fhir_hospital
from tests.client.outcomes.test_outcomes_fhir import CRP, DIABETES, fetched, plan_of, token

pytestmark = pytest.mark.processes

__all__ = ["token"]
DAY = "2024-01-31"


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    with fhir_hospital() as found:
        yield found


def link(kind: str, number: int, root: str = "") -> dict[str, object]:
    return {"type": kind, "other": {"reference": f"{root}Patient/p{number}"}}


def rows(found: OutcomeTable) -> list[tuple[str, ...]]:
    return list(found.rows)


def everybody(hospital: Hospital, token: Path, *names: str) -> OutcomeTable:
    plan = plan_of(hospital, token, origin=DAY)
    return fetched(plan, frozenset(names) if names else None)


@pytest.mark.parametrize("asked", [(), ("M1",), ("M2",), ("M1", "M2")])
@pytest.mark.parametrize("said_by", ["both", "old", "new"])
def test_a_record_that_was_replaced_is_not_used_and_what_it_says_counts(
    hospital: Hospital, token: Path, asked: tuple[str, ...], said_by: str
) -> None:
    old = hospital.patient(
        "M1",
        gender="male",
        birthDate="1940-01-01",
        **({} if said_by == "new" else {"link": [link("replaced-by", 1)]}),
    )
    new = hospital.patient(
        "M2",
        gender="female",
        birthDate="1950-01-01",
        deceasedDateTime="2024-06-01T08:00:00Z",
        **({} if said_by == "old" else {"link": [link("replaces", 0)]}),
    )
    hospital.diagnosis(old, DIABETES, "2010-05-05")
    hospital.value(old, CRP, "2024-01-20", 11.0)
    hospital.value(new, CRP, "2024-01-10", 5.0)
    found = everybody(hospital, token, *asked)
    name = "M1" if asked == ("M1",) else "M2"
    assert rows(found) == [(name, "74.1", "F", "1", "11.0", "1", "122")]
    told = [one for one in found.left_out if one.what == "patient M1"]
    assert bool(told) == (len(asked) != 1)  # nobody looks for M1 where no image has it


def test_a_death_on_any_record_is_a_death(hospital: Hospital, token: Path) -> None:
    hospital.patient("M1", deceasedDateTime="2024-03-01", link=[link("replaced-by", 1)])
    hospital.patient("M2", birthDate="1950-01-01")
    hospital.patient("M3", deceasedDateTime="2024-03", link=[link("replaced-by", 3)])
    hospital.patient("M4", birthDate="1950-01-01")
    found = everybody(hospital, token)
    assert [(row[0], *row[-2:]) for row in rows(found)] == [("M2", "1", "30")]
    assert [one.why for one in found.left_out if one.what == "Patient/p2"] == [
        "the date 2024-03 has no day (linked with Patient/p2)"
    ]


def test_chains_end_at_the_record_in_use(hospital: Hospital, token: Path) -> None:
    first = hospital.patient("M1", link=[link("replaced-by", 1)])
    hospital.patient("M2", link=[link("replaced-by", 2)])
    hospital.patient("M3", birthDate="1950-01-01")
    hospital.diagnosis(first, DIABETES, "2010-05-05")
    for asked in ((), ("M1",), ("M3",), ("M1", "M2", "M3")):
        found = everybody(hospital, token, *asked)
        name = "M1" if asked == ("M1",) else "M3"
        assert [(row[0], row[1], row[3]) for row in rows(found)] == [(name, "74.1", "1")]


def test_links_in_a_circle_or_to_what_is_not_there_leave_the_person_out(
    hospital: Hospital, token: Path
) -> None:
    hospital.patient("M0", link=[link("replaced-by", 1)])
    hospital.patient("M1", link=[link("replaced-by", 0)])
    hospital.patient("M2", link=[link("replaced-by", 99)])
    hospital.patient("M3", link=[link("seealso", 99)])
    hospital.patient("M4", link=[link("replaced-by", 3, "https://other.example/r4/")])
    hospital.patient("M5", link=[link("replaced-by", 6), link("replaced-by", 7)])
    hospital.patient("M6")
    hospital.patient("M7")
    hospital.patient("M8", link=[{"type": "seealso", "other": {"reference": "RelatedPerson/p1"}}])
    hospital.patient(
        "M9",
        link=[
            {"type": "replaced-by", "other": {"identifier": {"system": "urn:none", "value": "xM3"}}}
        ],
    )
    found = everybody(hospital, token)
    assert [row[0] for row in rows(found)] == ["M3", "M8"]
    assert {one.what: one.why for one in found.left_out} == {
        "Patient/p0": "is replaced in a circle",
        "Patient/p2": "is replaced by Patient/p99, which is not there",
        "Patient/p4": "is replaced by Patient/https://other.example/r4/Patient/p3, which is not "
        "there",
        "Patient/p5": "is replaced by several: Patient/p6, Patient/p7",
        "Patient/p9": "is replaced by the Patient with the identifier urn:none|xM3, which is not "
        "there",
    }


@pytest.mark.parametrize("asked", [(), ("M1",), ("M2",), ("M1", "M2")])
@pytest.mark.parametrize("system", ["urn:other", ""])
def test_a_link_by_an_identifier_is_followed_where_one_record_has_it(
    hospital: Hospital, token: Path, asked: tuple[str, ...], system: str
) -> None:
    named = {"value": "xM2"} | ({"system": system} if system else {})
    old = hospital.patient("M1", link=[{"type": "replaced-by", "other": {"identifier": named}}])
    hospital.patient("M2", birthDate="1950-01-01", deceasedDateTime="2024-06-01")
    hospital.patient("M3")
    hospital.diagnosis(old, DIABETES, "2010-05-05")
    found = everybody(hospital, token, *asked)
    name = "M1" if asked == ("M1",) else "M2"
    assert rows(found)[0] == (name, "74.1", "", "1", "", "1", "122")
    assert [row[0] for row in rows(found)] == [name, *([] if asked else ["M3"])]


def test_a_link_by_an_identifier_that_two_records_have_leaves_the_person_out(
    hospital: Hospital, token: Path
) -> None:
    named = {"system": "urn:other", "value": "xM2"}
    hospital.patient("M1", link=[{"type": "replaced-by", "other": {"identifier": named}}])
    for number in (2, 3):
        hospital.patient("M2")
        hospital.resources["Patient"][-1]["identifier"] = [
            named,
            {"system": "urn:oid:1.2.3.4", "value": f"M{number}"},
        ]
    hospital.patient("M4", link=[{"type": "replaced-by", "other": {"display": "somebody"}}])
    found = everybody(hospital, token)
    assert [row[0] for row in rows(found)] == ["M2", "M3"]
    assert {one.what: one.why for one in found.left_out} == {
        "Patient/p0": "is replaced by the Patient with the identifier urn:other|xM2, which "
        "Patient/p1, Patient/p2 have",
        "Patient/p3": "is replaced by a Patient that its link does not name",
    }


def test_linked_records_that_differ_in_birth_sex_or_death_are_listed(
    hospital: Hospital, token: Path
) -> None:
    hospital.patient("M1", birthDate="1940-01-01", gender="male", link=[link("replaced-by", 1)])
    hospital.patient("M2", birthDate="1950-01-01", gender="female")
    hospital.patient(
        "M3", deceasedDateTime="2024-03-01", birthDate="1950-02", link=[link("replaced-by", 3)]
    )
    hospital.patient("M4", deceasedDateTime="2024-04-01", gender="male", birthDate="1950-02-03")
    hospital.patient("M5", deceasedDateTime="2024-03-01", link=[link("replaced-by", 5)])
    hospital.patient("M6", deceasedBoolean=False)
    hospital.patient("M7", deceasedDateTime="2024-03-01", link=[link("replaced-by", 7)])
    hospital.patient("M8", deceasedBoolean=True, gender="unknown")
    found = everybody(hospital, token)
    assert [(row[0], *row[-2:]) for row in rows(found)] == [
        ("M2", "0", "335"),
        ("M4", "1", "61"),
        ("M6", "1", "30"),
        ("M8", "1", "30"),
    ]
    differ = "has records that differ in"
    assert [(one.what, one.why) for one in found.left_out if differ in one.why] == [
        (f"Patient/p{number}", f"{differ} {what} is used")
        for number, what in (
            (1, "birth dates (Patient/p0, Patient/p1): 1940-01-01 and 1950-01-01; 1950-01-01"),
            (1, "sexes (Patient/p0, Patient/p1): F and M; F"),
            (3, "deaths (Patient/p2, Patient/p3): 2024-03-01 and 2024-04-01; 2024-04-01"),
            (5, "deaths (Patient/p4, Patient/p5): 2024-03-01 and alive; 2024-03-01"),
        )
    ]


def test_an_absolute_reference_to_the_same_server_is_followed(
    hospital: Hospital, token: Path
) -> None:
    hospital.patient("M1", link=[link("replaced-by", 1, f"{hospital.url}/")])
    hospital.patient("M2")
    assert [row[0] for row in rows(everybody(hospital, token))] == ["M2"]


@pytest.mark.parametrize("kind", ["refer", "seealso"])
def test_records_that_are_both_in_use_are_one_person(
    hospital: Hospital, token: Path, kind: str
) -> None:
    first = hospital.patient("M1", link=[link(kind, 1)])
    second = hospital.patient("M2", birthDate="1950-01-01")
    hospital.value(second, CRP, "2024-01-20", 11.0)
    hospital.diagnosis(first, DIABETES, "2010-05-05")
    found = everybody(hospital, token)
    name, other = ("M2", "M1") if kind == "refer" else ("M1", "M2")
    assert [row[:5] for row in rows(found)] == [(name, "74.1", "", "1", "11.0")]
    assert [(one.what, one.why) for one in found.left_out] == [
        (f"patient {other}", f"is the same person as {name}, who has the row of both")
    ]


def test_an_identifier_that_is_old_is_no_second_one(hospital: Hospital, token: Path) -> None:
    patient = hospital.resources.setdefault("Patient", [])
    hospital.patient("M2")
    patient[0]["identifier"] = [
        {"system": "urn:oid:1.2.3.4", "value": "M1", "use": "old"},
        {"system": "urn:oid:1.2.3.4", "value": "M2", "use": "usual"},
    ]
    assert [row[0] for row in rows(everybody(hospital, token))] == ["M2"]
    assert [row[0] for row in rows(everybody(hospital, token, "M1"))] == ["M1"]


def test_one_identifier_in_two_records_without_a_link_is_nobodys(
    hospital: Hospital, token: Path
) -> None:
    hospital.patient("M1")
    hospital.patient("M1", deceasedDateTime="2024-03-01")
    hospital.patient("M2")
    found = everybody(hospital, token)
    assert [row[0] for row in rows(found)] == ["M2"]
    assert [(one.what, one.why) for one in found.left_out] == [
        ("patient M1", "is in 2 records that are not linked; merge them")
    ]


def test_a_server_that_cannot_search_by_link_is_named_and_its_own_links_are_followed(
    hospital: Hospital, token: Path
) -> None:
    hospital.patient("M1", link=[link("replaced-by", 1)])
    hospital.patient("M2")
    hospital.ignores_search = True
    found = everybody(hospital, token, "M2")
    assert [row[0] for row in rows(found)] == ["M2"]
    assert {one.what for one in found.left_out} == {"the server"}
    whys = [one.why for one in found.left_out]
    assert whys[0].startswith("cannot be asked which records link to a patient")
    assert "does not search Patient by identifier, link" in whys
