from __future__ import annotations

from pathlib import Path

import pytest

from client.dicom.reasons import Reason
from client.labels.clinical_columns import encode_rows
from client.labels.label_table import Labels, after_outcome, read_labels
from client.labels.schema import schema_path
from client.labels.units import factor
from common.config.run_config import NumberColumn, Table, parse_config
from common.platform.errors import CohortError, ConfigurationError
from tests.client.dicom_files import CONFIG

TEXT = """PatientID,ill,age,stage,crp,crp_taken,died,site
P1,1,70,II,5.5,2024-03-01,2024-03-02,a
P2,0,170,V,-9,2024-03-01,,b
UNKNOWN,0,40,I,1,,,b
P3,1,999,I,7,20240305,2024-03-04,a
P4,0,old,II,8,2024-03-04T09:00,2024-03-04,a
"""
SCHEMA = """
columns:
  PatientID: {type: identifier, missing: [UNKNOWN]}
  age: {type: number, unit: years, range: [0, 120], missing: [999]}
  stage: {type: category, values: [I, II]}
  crp: {type: number, unit: mg/L, missing: ["-9"], dated: crp_taken, before: died}
  crp_taken: {type: date}
  died: {type: date}
  site: {type: text}
"""


def read(folder: Path, schema: str = SCHEMA, text: str = TEXT) -> Labels:
    table = folder / "labels.csv"
    table.write_text(text, encoding="utf-8")
    schema_path(table).write_text(schema, encoding="utf-8")
    return read_labels(table, ("ill",), with_images=True)


def test_what_is_not_as_declared_is_missing_and_listed(tmp_path: Path) -> None:
    labels = read(tmp_path)
    assert [row["age"] for row in labels.rows] == ["70", "", "", ""]
    assert [row["stage"] for row in labels.rows] == ["II", "", "I", "II"]
    assert [(p.reason, p.what, p.detail) for p in labels.unusable] == [
        (Reason.VALUE_UNUSABLE, "line 3", "column age holds '170', expected 0 to 120 years"),
        (Reason.VALUE_UNUSABLE, "line 3", "column stage holds 'V', expected one of I, II"),
        (Reason.NO_KEY, "line 4", ""),
        (
            Reason.LABEL_AFTER_OUTCOME,
            "line 5",
            "column crp: crp_taken is 2024-03-05, died is 2024-03-04",
        ),
        (Reason.VALUE_UNUSABLE, "line 6", "column age holds 'old', expected 0 to 120 years"),
    ]


def test_codes_for_missing_are_empty_and_not_listed(tmp_path: Path) -> None:
    labels = read(tmp_path)
    assert labels.rows[1]["crp"] == ""
    assert labels.rows[2]["age"] == ""


def test_a_value_taken_after_the_outcome_is_left_out_and_told(tmp_path: Path) -> None:
    labels = read(tmp_path)
    assert [one.what for one in after_outcome(labels)] == ["line 5"]
    assert labels.rows[2]["crp"] == ""
    assert labels.rows[3]["crp"] == "8"  # on the same day


def test_a_value_whose_day_cannot_be_read_may_be_late_and_is_left_out(tmp_path: Path) -> None:
    text = f"""{TEXT.splitlines()[0]}
P1,1,70,II,5.5,01.03.2024,02.03.2024,a
P2,1,70,II,5.5,03.03.2024,02.03.2024,a
P3,1,70,II,5.5,03/01/2024,2024-03-02,a
P4,1,70,II,5.5,2024-03-01,soon,a
"""
    labels = read(tmp_path, text=text)
    assert [row["crp"] for row in labels.rows] == ["5.5", "", "", ""]
    told = {p.what: (p.reason, p.detail) for p in labels.unusable if "column crp:" in p.detail}
    assert told == {
        "line 3": (
            Reason.LABEL_AFTER_OUTCOME,
            "column crp: crp_taken is 2024-03-03, died is 2024-03-02",
        ),
        "line 4": (
            Reason.VALUE_UNUSABLE,
            "column crp: crp_taken holds '03/01/2024', expected a date such as 2024-03-01",
        ),
        "line 5": (
            Reason.VALUE_UNUSABLE,
            "column crp: died holds 'soon', expected a date such as 2024-03-01",
        ),
    }


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("columns: {ill: {type: category, codes: {'1': 0, '1.0': 1}}}", "names one number twice"),
        ("columns: {ill: {type: number, codes: {1: 0}}}", "codes is for type: category"),
        ("columns: {ill: {type: category, values: [0, 1], codes: {2: 3}}}", "none of values"),
        ("decimal: dot", "decimal is 'dot'"),
        ("columns: {weight: {type: number}}", "names the column weight, which labels.csv does not"),
        ("columns: {age: {type: numbers}}", "columns.age.type is 'numbers'"),
        ("columns: {age: {type: text, unit: a}}", "unit is for type: number"),
        ("columns: {age: {type: category}}", "needs values"),
        ("columns: {age: {type: number, range: [9, 1]}}", "low < high"),
        ("columns: {crp: {type: number, dated: died}}", "belong together"),
        ("columns: {age: {type: number, ranges: [0, 1]}}", "unknown key columns.age.ranges"),
        ("columns: [", "is not YAML"),
        ("- a", "holds list"),
    ],
)
def test_a_wrong_schema_says_what_is_wrong(tmp_path: Path, schema: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, schema)
    assert "labels.schema.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("have", "want", "times"),
    [
        ("cm", "mm", 10.0),
        ("kg", "g", 1000.0),
        ("years", "months", 12.0),
        ("a", "d", 365.25),
        ("mo", "years", 1 / 12),
        ("mg/dL", "mg/L", 10.0),
        ("mg/dl", "g/l", 0.01),
        ("µmol/L", "mmol/L", 0.001),
        ("10*9/L", "10*3/uL", 1.0),
        ("%", "1", 0.01),
        ("[iU]/L", "[iU]/L", 1.0),
        ("mg/dL", "mmol/L", None),
        ("Cel", "[degF]", None),
        ("kg", "cm", None),
        ("Mg", "mg", None),
    ],
)
def test_only_plain_factors_convert(have: str, want: str, times: float | None) -> None:
    assert factor(have, want) == (None if times is None else pytest.approx(times, rel=1e-12))


def encoded(labels: Labels, unit: str | None) -> list[float]:
    numbers = (NumberColumn(column="crp", unit=unit),)
    found: list[float] = encode_rows(labels, [0], Table(numbers=numbers))[0][0].tolist()
    return found


def test_a_number_is_converted_to_the_runs_unit_or_the_run_refused(tmp_path: Path) -> None:
    labels = read(tmp_path)
    assert encoded(labels, "mg/L") == encoded(labels, None) == [5.5, 0.0]
    assert encoded(labels, "mg/dL") == [pytest.approx(0.55), 0.0]
    with pytest.raises(CohortError, match=r"takes crp in mmol/L; .* declares mg/L"):
        encoded(labels, "mmol/L")
    undeclared = read(tmp_path, "columns: {crp: {type: number}}")
    assert encoded(undeclared, "mmol/L") == [5.5, 0.0]


def test_a_run_without_units_keeps_the_hash_that_hospitals_approved() -> None:
    cohort = "{table: {numbers: [{column: age, center: 60.0, scale: 10.0}]}}"
    plain = CONFIG.format(task="{kind: diagnosis, target: ill}", cohort=cohort, network="table")
    assert parse_config(plain).fingerprint() == (
        "98925bf941cc327939081254f141fb74a5cf0f635c500fd7283a6fb2ce457e89"
    )
    units = parse_config(plain.replace("scale: 10.0", "scale: 10.0, unit: a"))
    assert units.fingerprint() != parse_config(plain).fingerprint()
