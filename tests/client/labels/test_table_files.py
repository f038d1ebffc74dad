"""The same table is the same rows, whichever program wrote it."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pytest
from openpyxl.styles import Protection
from pyarrow import parquet

from client.dicom.reasons import Reason
from client.labels.label_table import Labels, read_labels
from client.labels.table_files import read_table
from common.platform.errors import CohortError

HEADER = ("PatientID", "StudyInstanceUID", "ill", "crp", "taken", "seen", "alive", "note")
# Spreadsheets and databases know no time zones.
MORNING, MIDNIGHT = map(datetime.fromisoformat, ("2024-03-01T08:30", "2024-01-01"))
ROWS: tuple[tuple[object, ...], ...] = (
    ("0012", "1.2.3", 1, 12.5, date(2024, 3, 1), MORNING, True, "a, b"),
    ("12", "1.2.4", 0, 0.1, date(2023, 12, 31), MIDNIGHT, False, "zwölf\nlines"),
    ("A7", "1.2.5", 1, None, None, None, None, None),
    ("A8", "1.2.6", 0, 1e-7, date(1999, 1, 1), None, True, '"quoted"'),
)
TEXT = (
    ("0012", "1.2.3", "1", "12.5", "2024-03-01", "2024-03-01T08:30:00", "TRUE", "a, b"),
    ("12", "1.2.4", "0", "0.1", "2023-12-31", "2024-01-01", "FALSE", "zwölf\nlines"),
    ("A7", "1.2.5", "1", "", "", "", "", ""),
    ("A8", "1.2.6", "0", "1e-07", "1999-01-01", "", "TRUE", '"quoted"'),
)


def as_csv(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *TEXT])
    return path


def as_xlsx(path: Path, rows: object = ROWS, **formats: str) -> Path:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(HEADER)
    for row in ROWS if rows is ROWS else rows:  # type: ignore[attr-defined]  # any rows of cells
        sheet.append(row)
    for place, form in formats.items():
        sheet[place].number_format = form
    book.save(path)
    return path


def as_parquet(path: Path) -> Path:
    columns = dict(zip(HEADER, zip(*ROWS, strict=True), strict=True))
    parquet.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
    return path


def test_csv_xlsx_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    paths = (
        as_csv(tmp_path / "t.csv"),
        as_xlsx(tmp_path / "t.xlsx"),
        as_parquet(tmp_path / "t.parquet"),
    )
    first, *others = [read_labels(path, ("ill", "crp"), with_images=True) for path in paths]
    assert [tuple(row.values()) for row in first.rows] == list(TEXT)
    for other in others:
        assert replace(other, lines=()) == replace(first, lines=())


@pytest.mark.parametrize("key", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_a_spreadsheet_is_joined_by_any_level(tmp_path: Path, key: str) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append((key, "ill"))
    book.worksheets[0].append(("X1", 1))
    book.save(tmp_path / "t.xlsx")
    labels = read_labels(tmp_path / "t.xlsx", ("ill",), with_images=True)
    keys = dict.fromkeys(
        ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber"), "other"
    )
    assert labels.rows[labels.find(keys | {key: "X1"})]["ill"] == "1"


def cells(path: Path) -> list[tuple[str, ...]]:
    return [row for _, row in read_table(path).lines]


def test_identifiers_are_read_as_the_spreadsheet_shows_them(tmp_path: Path) -> None:
    path = as_xlsx(tmp_path / "t.xlsx", [(7, 12345.0, 1), (7, "0012", 0)], A2="0000", B2="General")
    assert [row[:3] for row in cells(path)[1:]] == [("0007", "12345", "1"), ("7", "0012", "0")]


def test_a_first_sheet_without_keys_names_the_others(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append(("a note",))
    book.create_sheet("Outcomes").append(("PatientID", "ill"))
    book.save(tmp_path / "outcomes.xlsx")
    with pytest.raises(CohortError, match=r"there is also Outcomes: .* outcomes\.schema\.yaml"):
        read_labels(tmp_path / "outcomes.xlsx", ["ill"], with_images=True)


def test_a_spreadsheets_number_that_lost_digits_matches_nothing(tmp_path: Path) -> None:
    path = as_xlsx(tmp_path / "t.xlsx", [(1234567890123456, "1.2", 1)])
    assert cells(path)[1][0] == "1.23E+15"


def test_whole_numbers_that_pandas_stored_with_a_point_are_whole(tmp_path: Path) -> None:
    table = pa.table({"PatientID": [12345.0, None, float("nan")], "ill": [1, 0, 1]})
    parquet.write_table(table, tmp_path / "t.parquet")
    labels = read_labels(tmp_path / "t.parquet", ("ill",), with_images=True)
    assert [row["PatientID"] for row in labels.rows] == ["12345"]
    assert [p.reason for p in labels.unusable] == [Reason.NO_KEY] * 2


def test_parquets_types_become_text_without_a_lost_or_an_added_digit(tmp_path: Path) -> None:
    columns = {
        "f32": pa.array([0.1, None], pa.float32()),
        "f64": pa.array([0.1 + 0.2, 1e300]),
        "big": pa.array([2**63 - 1, -(2**63)]),
        "money": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "nano": pa.array(
            np.array(["2024-03-01T08:30:00", "2024-03-01"], "datetime64[ns]"), pa.timestamp("ns")
        ),
        "utc": pa.array([datetime(2024, 3, 1, 8, tzinfo=UTC)] * 2, pa.timestamp("s", tz="UTC")),
        "day": pa.array([date(2024, 3, 1), None], pa.date32()),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert cells(tmp_path / "t.parquet")[1:] == [
        (
            "0.1",
            "0.30000000000000004",
            "9223372036854775807",
            "1.50",
            "a",
            "2024-03-01T08:30:00",
            "2024-03-01T08:00:00+00:00",
            "2024-03-01",
        ),
        (
            "",
            "1e+300",
            "-9223372036854775808",
            "",
            "b",
            "2024-03-01",
            "2024-03-01T08:00:00+00:00",
            "",
        ),
    ]


@pytest.mark.parametrize("name", ["t.xlsx", "t.parquet"])
@pytest.mark.parametrize("decimal", ["", "decimal: comma", "decimal: point"])
def test_a_stored_number_keeps_its_point(tmp_path: Path, name: str, decimal: str) -> None:
    path = tmp_path / name
    if name == "t.xlsx":
        book = openpyxl.Workbook()
        for row in (("PatientID", "crp", "ill"), ("P0", 1.234, 1)):
            book.worksheets[0].append(row)
        book.save(path)
    else:
        parquet.write_table(pa.table({"PatientID": ["P0"], "crp": [1.234], "ill": [1]}), path)
    if decimal:
        (tmp_path / "t.schema.yaml").write_text(decimal)
    for private in (False, True):
        found = read_labels(
            path, ("crp", "ill"), with_images=False, numbers=("crp",), by_patient=private
        )
        assert found.unusable == ()
        assert [float(row["crp"]) for row in found.rows] == [1.234]


def test_a_parquet_column_that_is_no_cell_is_named(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"PatientID": ["1"], "ill": [[1, 2]]}), tmp_path / "t.parquet")
    with pytest.raises(CohortError, match=r"column ill has the type list"):
        read_table(tmp_path / "t.parquet")


def test_errors_and_formulas_without_a_value_are_told_by_their_cell(tmp_path: Path) -> None:
    path = as_xlsx(tmp_path / "t.xlsx", [("P1", "1.2", 1, "#N/A")])
    labels = read_labels(path, ("ill", "crp"), with_images=True)
    assert labels.rows[0]["crp"] == ""
    assert [(p.reason, p.what, p.detail) for p in labels.unusable] == [
        (Reason.VALUE_UNUSABLE, "line 2", "cell D2 holds the error #N/A")
    ]
    path = as_xlsx(tmp_path / "u.xlsx", [("P1", "1.2", "=1+1")])
    with pytest.raises(CohortError, match="cell C2 holds a formula without its value"):
        read_table(path)


def test_a_length_of_time_is_no_cell_of_a_table(tmp_path: Path) -> None:
    path = as_xlsx(tmp_path / "t.xlsx", [("P1", "1.2", timedelta(hours=30))])
    with pytest.raises(CohortError, match=r"cell C2 holds a timedelta\. Format it as text"):
        read_table(path)


def test_merged_cells_hold_the_same_text_and_empty_rows_are_no_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in (
        ("PatientID", "StudyInstanceUID", "ill"),
        ("P1", "S1", 1),
        (None, "S2", 0),
        (),
        (None, None, None),
        ("P2", "S3", None),
    ):
        sheet.append(row)
    sheet.merge_cells("A2:A3")
    sheet["D9"].protection = Protection(locked=True)  # a formatted cell below holds nothing
    book.save(tmp_path / "t.xlsx")
    labels = read_labels(tmp_path / "t.xlsx", ("ill",), with_images=True)
    assert [(row["PatientID"], row["ill"]) for row in labels.rows] == [
        ("P1", "1"),
        ("P1", "0"),
        ("P2", ""),
    ]
    assert labels.lines == (2, 3, 6)
    assert not labels.unusable


def test_the_first_sheet_is_read_or_the_one_that_the_schema_names(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append(("PatientID", "ill"))
    book.worksheets[0].append(("P1", 1))
    other = book.create_sheet("Outcomes")
    other.append(("PatientID", "ill"))
    other.append(("P2", 0))
    book.save(tmp_path / "t.xlsx")
    for schema, patient in (("", "P1"), ("sheet: Outcomes", "P2")):
        (tmp_path / "t.schema.yaml").write_text(schema or "columns: {}")
        labels = read_labels(tmp_path / "t.xlsx", ("ill",), with_images=True)
        assert labels.rows[0]["PatientID"] == patient
    (tmp_path / "t.schema.yaml").write_text("sheet: Labels")
    with pytest.raises(CohortError, match=r"no sheet 'Labels'. It has Sheet, Outcomes"):
        read_labels(tmp_path / "t.xlsx", ("ill",), with_images=True)


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "xls", "ods"])
def test_what_is_no_such_file_says_what_to_save_it_as(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"PatientID,ill\nP1,1\n")
    with pytest.raises(CohortError, match=r"CSV in UTF-8"):
        read_table(path)
    with pytest.raises(CohortError, match="There is no"):
        read_table(tmp_path / f"none.{suffix}")


@pytest.mark.parametrize("row", ['M,"4,1', 'M,4,"1', 'M,"4', 'M,4,1"', "M," + "x" * 200_000])
@pytest.mark.parametrize("place", [0, 3])
def test_line_by_line_an_open_quote_swallows_no_other_row(
    tmp_path: Path, row: str, place: int
) -> None:
    others = [f'P{number},"{number}",""' for number in range(6)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(['PatientID,"crp, mg/l",ill', *others]), encoding="utf-8")
    before = {cells for _, cells in read_table(path, line_by_line=True).lines}
    others.insert(place, row)
    path.write_text("\n".join(['PatientID,"crp, mg/l",ill', *others]), encoding="utf-8")
    table = read_table(path, line_by_line=True)
    after = {cells for _, cells in table.lines}
    assert len(before) == 7
    if row == 'M,4,1"':  # a quote within a cell opens nothing
        assert after - before == {("M", "4", '1"')}
    else:
        assert after == before
        assert [one.what for one in table.unusable] == [f"line {place + 2}"]


@pytest.mark.parametrize("row", ['P1"x,1', 'P1",1', '"P1",1', "P1,1", 'P1,"1'])
def test_line_by_line_no_row_says_where_the_header_ends(tmp_path: Path, row: str) -> None:
    path = tmp_path / "t.csv"
    for header in ('PatientID,ill,"note', 'PatientID,ill,"a\nb"'):
        path.write_text(f"{header}\n{row}\nP2,0\n", encoding="utf-8")
        with pytest.raises(CohortError, match=r"line 1, its header, opens a quote .* on one line"):
            read_table(path, line_by_line=True)


HEAD, BODY = "PatientID;ill;crp\n", "P0;0;2,5\nMüller;1;0,25\n"
READ = [("P0", "0", "2.5"), ("Müller", "1", "0.25")]


def read(path: Path, content: bytes, *, private: bool) -> Labels:
    path.write_bytes(content)
    return read_labels(
        path, ("ill", "crp"), with_images=False, numbers=("crp",), by_patient=private
    )


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        (HEAD + BODY).encode("utf-16-le"),
        (HEAD + BODY).encode("utf-16-be"),
        b"\xfe\xff" + (HEAD + BODY).encode("utf-16-be"),
        ("sep=;\r\n" + HEAD + BODY).encode("utf-16-le"),
        (HEAD + BODY).encode("utf-32"),
        ("\ufeffsep=;\n" + HEAD + BODY).encode(),
        ("\ufeff\ufeff" + HEAD + BODY).encode(),
        ("sep=,\n" + HEAD + BODY).encode(),
        (HEAD + BODY).replace(";", "\t").encode(),
        (HEAD.replace("\n", ";\n") + BODY).encode(),
        (HEAD + BODY.replace("\n", ";\n")).encode(),
    ],
)
def test_a_table_is_read_in_each_alphabet_of_unicode_and_with_each_separator(
    tmp_path: Path, content: bytes, *, private: bool
) -> None:
    found = read(tmp_path / "t.csv", content, private=private)
    assert [tuple(row.values())[:3] for row in found.rows] == READ
    assert not found.unusable


#: What is wrong, whether it is in the header, and how the reason begins or goes on.
FAULTS: dict[str, tuple[bytes, bool, str]] = {
    "alphabet": (f"{HEAD}{BODY}".encode("latin-1"), False, "no character of UTF-8|is not UTF-8"),
    "in the header": ("PatientID;ill;crp;Größe\nP0;0;1;2\n".encode("cp1252"), True, "not UTF-8"),
    "cut": ((HEAD + BODY).encode("utf-16")[:-1], False, "no character of (UTF-16|that)"),
    "NUL": ((HEAD + "P\0;0;1\n" * 3 + BODY).encode(), False, "holds a NUL"),
    "NUL in the header": (("P\0;" + HEAD + BODY).encode(), True, "holds a NUL"),
    "two alphabets": (HEAD.encode() + b"P\0" * 9, False, "holds a NUL"),
    "short": (HEAD.encode() + b"P0;0\nP1;1\n", False, "fewer cells than the header: 2, not 3"),
    "short, by commas": (b"PatientID,ill,crp\nP0,0\n", False, "fewer cells than the header: 2"),
    "rows parted otherwise": (
        b"PatientID,ill,crp\nP0;0;2,5\nP1;1;3\n",
        False,
        "fewer cells than the header",
    ),
    "lines in quotes": (b'"PatientID,ill,crp"\n"P0,0,2"\n', True, "stands in quotes as a whole"),
    "decimal commas": (b"PatientID,ill,crp\nP0,0,2,5\n", False, "a comma in a cell parts it"),
    "separator in cells": (HEAD.encode() + b"P0;0;2;5\n", False, "a semicolon in a cell parts it"),
    "long": (HEAD.encode() + b"P0;0;" + b"x" * 200_000 + b"\n", False, "131072"),
    "open": ((HEAD + 'P8;0;"2,5\n' + BODY).encode(), False, "opens a quote"),
    "closed too late": (
        (HEAD + 'P8;0;"2,5\nP7;1;2\nP6;1;"2\n' + BODY).encode(),
        False,
        "opens a quote",
    ),
    "open in the header": ((HEAD.replace("ill", '"ill') + BODY).encode(), True, "opens a quote"),
    "twice": (b"PatientID,crp,ill,crp\nP0,1,0,2\n", True, "the column crp twice"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_read_stops_with_its_cause_or_is_listed_where_no_row_may_stop(
    tmp_path: Path, name: str
) -> None:
    content, in_header, cause = FAULTS[name]
    with pytest.raises(CohortError, match=cause) as caught:
        read(tmp_path / "t.csv", content, private=False)
    said = str(caught.value)
    assert ("ecimal commas" in said) == (name == "decimal commas")
    assert ("rows are parted by a semicolon" in said) == (name == "rows parted otherwise")
    if in_header:
        with pytest.raises(CohortError, match=cause):
            read(tmp_path / "t.csv", content, private=True)
        return
    found = read(tmp_path / "t.csv", content, private=True)
    assert any(re.search(cause, one.detail) for one in found.unusable)
    assert {one.reason for one in found.unusable} == {Reason.ROW_MALFORMED}
    assert all(row["PatientID"] in {"P0", "P6", "P7", "Müller"} for row in found.rows)


def test_a_cell_of_several_lines_is_one_cell(tmp_path: Path) -> None:
    text = HEAD.replace("\n", ";note\n") + 'P0;0;2,5;"a\nb;1;2;3\nc"\nP1;1;1;"x\n\ny ""z"""\n'
    found = read(tmp_path / "t.csv", text.encode(), private=False)
    assert [row["note"] for row in found.rows] == ["a\nb;1;2;3\nc", 'x\n\ny "z"']


def test_a_row_of_a_spreadsheet_or_a_parquet_stops_no_run_with_privacy(tmp_path: Path) -> None:
    def book(*rows: Sequence[object]) -> Path:
        return as_xlsx(tmp_path / "t.xlsx", [("P1", "1.2", 1, 5), *rows])

    for path in (book(("P2", "1.3", "=1+1", 5)), book(("P2", "1.3", timedelta(hours=30), 5))):
        with pytest.raises(CohortError, match="cell C3 holds"):
            read_table(path)
        found = read_table(path, line_by_line=True)
        assert [cells[:4] for _, cells in found.lines[1:]] == [
            ("P1", "1.2", "1", "5"),
            ("P2", "1.3", "", "5"),
        ]
        assert [(p.reason, p.what) for p in found.unusable] == [(Reason.VALUE_UNUSABLE, "line 3")]
    days = pa.array([0, 10**9], pa.date32())  # no date that Python has
    table = pa.table(
        {
            "PatientID": ["P1", "P2"],
            "day": days,
            "time": pa.array([1, 1_000_000_001], pa.timestamp("ns")),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(CohortError, match="column day"):
        read_table(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", line_by_line=True)
    assert [cells[:2] for _, cells in found.lines[1:]] == [("P1", "1970-01-01"), ("P2", "")]
    assert [one.what for one in found.unusable] == ["line 3"]
