from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from client.outcomes.omop import Omop
from client.outcomes.outcome_table import OutcomeTable, build
from client.outcomes.outcomes_yaml import OutcomesPlan
from common.platform.errors import CohortError, ConfigurationError, Unreachable
from tests.client.omop_hospital import omop_hospital, url_file
from tests.client.terminals import Site

CONTENT: dict[str, object] = {
    "key": "PatientID",
    "who": "everybody",
    "columns": {
        "age": {"patient": "age"},
        "sex": {"patient": "sex"},
        "diabetes": {"condition": [201826]},
        "crp": {"observation": [3020460], "unit": "mg/L"},
    },
    "outcome": {"event": "died", "time": "days", "death": True, "censored": "last_contact"},
}


def plan_of(url: Path, **changed: object) -> OutcomesPlan:
    return OutcomesPlan.model_validate({**CONTENT, "sql": {"url_file": url}, **changed})


def fetched(plan: OutcomesPlan, patients: frozenset[str] | None = None) -> OutcomeTable:
    assert plan.sql is not None
    with Omop(plan, plan.sql) as database:
        return build(plan, database.records(patients))


def test_an_omop_database_becomes_the_same_table_as_fhir(tmp_path: Path) -> None:
    found = fetched(plan_of(omop_hospital(tmp_path)))
    assert found.columns == ("PatientID", "age", "sex", "diabetes", "crp", "died", "days")
    assert found.rows == (
        ("P1", "74.1", "F", "1", "5.5", "1", "30"),
        ("P2", "63.6", "M", "0", "7.5", "0", "151"),
        ("P3", "53.9", "", "0", "", "0", "29"),
    )
    assert [(one.what, one.why) for one in found.left_out] == [
        ("person 4", "has no source value"),
        ("person 5", "has the person_source_value of another"),
        ("measurement 4", "has no exact number"),
        ("measurement 5", "has no number"),
        ("patient P3, crp", "4 mmol/L, expected mg/L"),
    ]


def test_rows_may_stand_for_studies(tmp_path: Path) -> None:
    found = fetched(plan_of(omop_hospital(tmp_path), key="StudyInstanceUID"))
    assert [(*row[:2], row[-1]) for row in found.rows] == [
        ("P1", "1.2.1", "30"),
        ("P2", "1.2.2", "151"),
        ("P3", "1.2.3", "29"),
        ("P3", "1.2.4", "19"),
    ]


def test_only_who_was_asked_for_is_read_and_a_thousand_names_fit(tmp_path: Path) -> None:
    names = frozenset({"P2", "'; DROP TABLE person; --", *(f"X{n}" for n in range(1200))})
    url = omop_hospital(tmp_path)
    assert [row[0] for row in fetched(plan_of(url), names).rows] == ["P2"]
    assert len(fetched(plan_of(url)).rows) == 3


def test_nothing_but_a_select_reaches_the_database(tmp_path: Path) -> None:
    url = omop_hospital(tmp_path)
    before = hashlib.sha256((tmp_path / "omop.sqlite").read_bytes()).digest()
    plan = plan_of(url)
    fetched(plan)
    assert plan.sql is not None
    with Omop(plan, plan.sql) as database, database._engine.connect() as connection:
        for statement in (
            "DELETE FROM person",
            " update person set person_id = 7",
            "SELECT 1; DROP TABLE death",
            "PRAGMA writable_schema = 1",
            "WITH x AS (SELECT 1) INSERT INTO death SELECT 1, 2",
        ):
            with pytest.raises(ConfigurationError, match="Only SELECT"):
                connection.execute(text(statement))
    assert hashlib.sha256((tmp_path / "omop.sqlite").read_bytes()).digest() == before


def test_what_is_no_omop_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    url = omop_hospital(tmp_path / "a", "DROP TABLE death;")
    with pytest.raises(CohortError, match=r"not in OMOP's Common Data Model .* death"):
        fetched(plan_of(url))
    url = url_file(tmp_path, f"sqlite:///{tmp_path}/none/omop.sqlite")
    with pytest.raises(Unreachable, match="does not answer"):
        fetched(plan_of(url))
    with pytest.raises(ConfigurationError, match="'x' is no OMOP concept"):
        fetched(plan_of(omop_hospital(tmp_path), columns={"d": {"condition": ["x"]}}))


@pytest.mark.parametrize("url", ["secret-word", "nodatabase://u:secret-word@h/d", "sqlite+no://"])
def test_a_wrong_url_is_told_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="no URL that SQLAlchemy can use") as caught:
        fetched(plan_of(url_file(tmp_path, url)))
    assert "secret-word" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_url_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    url = omop_hospital(tmp_path)
    url.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        fetched(plan_of(url))


def test_the_command_asks_the_database(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.set_up()
    wanted = tmp_path / "outcomes.yaml"
    wanted.write_text(
        yaml.safe_dump(
            {**CONTENT, "sql": {"url_file": str(omop_hospital(tmp_path))}}, sort_keys=False
        )
    )
    ended = site.types("outcomes", wanted, "--out", tmp_path / "labels.csv")
    assert ended.status == 0, ended.text
    assert (tmp_path / "labels.csv").read_text().splitlines()[:2] == [
        "PatientID,age,sex,diabetes,crp,died,days",
        "P1,74.1,F,1,5.5,1,30",
    ]


def test_a_driver_that_is_not_there_is_named_with_the_extra_that_brings_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)
    for begin in ("postgresql", "postgresql+psycopg"):
        url = url_file(tmp_path, f"{begin}://u:secret-word@127.0.0.1/omop")
        with pytest.raises(ConfigurationError, match=r"psycopg2? .*wardround\[omop\]") as caught:
            fetched(plan_of(url))
        assert "secret-word" not in str(caught.value)


def test_a_database_without_the_imaging_extension_is_told_what_it_lacks(tmp_path: Path) -> None:
    url = omop_hospital(tmp_path, "DROP TABLE image_occurrence;")
    with pytest.raises(CohortError, match=r"imaging extension \(MI-CDM\)"):
        fetched(plan_of(url))
    assert fetched(plan_of(url, origin="2024-01-31")).rows


def test_what_nobody_has_is_asked_about_and_not_taken_for_health(tmp_path: Path) -> None:
    url = omop_hospital(tmp_path, "DELETE FROM condition_occurrence; DELETE FROM measurement;")
    with pytest.raises(CohortError, match="condition_occurrence has no row of 201826 for any"):
        fetched(plan_of(url))
    with pytest.raises(CohortError, match="measurement has no row of 3020460 for any"):
        fetched(plan_of(url, none_expected=["Condition"]))
    found = fetched(plan_of(url, none_expected=["Condition", "Observation"]))
    assert {row[3] for row in found.rows} == {"0"}
