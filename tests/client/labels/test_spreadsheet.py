"""A spreadsheet is read as it is stored, and line by line no row says what another holds."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import openpyxl
import pyarrow as pa
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904
from pyarrow import parquet

from client.dicom.reasons import Reason
from client.labels.label_table import read_labels
from client.labels.table_files import read_table
from common.platform.errors import CohortError
from tests.privacy import tables
from tests.privacy.tables import odd_rows, write_xlsx

ROWS = [{"PatientID": f"P{n}", "ill": n % 2, "age": 40 + n} for n in range(4)]
CELLS = [("P0", "0", "40"), ("P1", "1", "41"), ("P2", "0", "42"), ("P3", "1", "43")]


def book(path: Path, *merged: str, rows: int = 4) -> Path:
    written = openpyxl.Workbook()
    sheet = written.worksheets[0]
    sheet.append(("PatientID", "ill", "age"))
    for row in ROWS[:rows]:
        sheet.append(tuple(row.values()))
    for area in merged:
        sheet.merge_cells(area)
    written.save(path)
    return path


def cells(path: Path, *, line_by_line: bool = True) -> list[tuple[str, ...]]:
    return [row[:3] for _, row in read_table(path, line_by_line=line_by_line).lines[1:]]


def test_cells_that_are_merged_over_rows_fill_the_first_row_alone_line_by_line(
    tmp_path: Path,
) -> None:
    path = book(tmp_path / "t.xlsx", "B2:B4")
    assert cells(path, line_by_line=False) == [
        ("P0", "0", "40"),
        ("P1", "0", "41"),
        ("P2", "0", "42"),
        ("P3", "1", "43"),
    ]
    assert cells(path) == [("P0", "0", "40"), ("P1", "", "41"), ("P2", "", "42"), ("P3", "1", "43")]
    listed = read_table(path, line_by_line=True).unusable
    assert [(one.reason, one.what) for one in listed] == [
        (Reason.VALUE_UNUSABLE, "line 3"),
        (Reason.VALUE_UNUSABLE, "line 4"),
    ]
    assert "cell B3 is merged with B2, of another row" in listed[0].detail


def test_cells_that_are_merged_within_a_row_hold_its_text(tmp_path: Path) -> None:
    for private in (False, True):
        found = cells(book(tmp_path / "t.xlsx", "B2:C2", "B3:C4"), line_by_line=private)
        assert found[:2] == [("P0", "0", "0"), ("P1", "1", "1")]
        assert found[2] == (("P2", "", "") if private else ("P2", "1", "1"))


def test_patients_under_one_merged_identifier_are_nobody_line_by_line(tmp_path: Path) -> None:
    path = book(tmp_path / "t.xlsx", "A2:A5")
    labels = read_labels(path, ("ill",), with_images=False, by_patient=True)
    assert [row["PatientID"] for row in labels.rows] == ["P0"]
    assert [p.reason for p in labels.unusable].count(Reason.NO_KEY) == 3


def test_a_cell_that_is_merged_away_keeps_what_its_row_stores_line_by_line(tmp_path: Path) -> None:
    above = '<row r="2"><c r="A2" t="inlineStr"><is><t>X</t></is></c><c r="B2"><v>1</v></c></row>'
    for area in ("B1:B{below}", "A1:Z{below}", "A{r}:C{below}", "A1:XFD1048576"):
        write_xlsx(tmp_path / "t.xlsx", ROWS, [above], [area])
        assert cells(tmp_path / "t.xlsx")[1:] == CELLS


def test_a_header_that_is_merged_in_itself_is_one(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "t.xlsx", [ROWS[0] | {"": "", "note": "x"}], (), ["C1:D1"])
    (_, header), _ = read_table(tmp_path / "t.xlsx", line_by_line=True).lines
    assert header == ("PatientID", "ill", "age", "age", "note")


@pytest.mark.parametrize("cell", tables._CELLS)
@pytest.mark.parametrize("said", tables._ROWS)
def test_a_row_that_cannot_be_read_changes_no_other(tmp_path: Path, cell: str, said: str) -> None:
    odd = f'<row {said}><c r="A{{r}}"><v>7</v></c>{cell}</row>'
    write_xlsx(tmp_path / "t.xlsx", ROWS, [odd], ())
    table = read_table(tmp_path / "t.xlsx", line_by_line=True)
    places = [place for place, _ in table.lines]
    assert places == sorted(set(places))
    assert [row for row in cells(tmp_path / "t.xlsx") if row[0].startswith("P")] == CELLS


def test_areas_and_rows_of_any_kind_change_no_other(tmp_path: Path) -> None:
    for seed in range(40):
        chance = random.Random(seed)
        odd = odd_rows("X", chance, chance.randint(1, 5))
        write_xlsx(tmp_path / "t.xlsx", ROWS, odd, tables.odd_areas(chance))
        found = cells(tmp_path / "t.xlsx")
        assert [row for row in found if row[0].startswith("P")] == CELLS, seed


@pytest.mark.parametrize("private", [False, True])
def test_a_sheets_size_is_what_it_stores(tmp_path: Path, private: bool) -> None:  # noqa: FBT001
    """Its last possible cell makes it no larger, nor do cells that are merged up to there."""
    odd = ['<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>']
    write_xlsx(tmp_path / "t.xlsx", ROWS, odd, ["XFC1048570:XFD1048576"])
    assert cells(tmp_path / "t.xlsx", line_by_line=private)[-4:] == CELLS


def test_a_formula_has_the_value_that_was_saved_and_may_be_an_empty_text(tmp_path: Path) -> None:
    odd = (
        '<row r="2"><c r="A2" t="str"><f>B9</f><v>X</v></c><c r="B2"><f>SUM(B3:B9)</f><v>1</v></c>'
        '<c r="C2" t="str"><f>""</f><v></v></c></row>'
    )
    write_xlsx(tmp_path / "t.xlsx", ROWS, [odd], ())
    for private in (False, True):
        assert cells(tmp_path / "t.xlsx", line_by_line=private) == [("X", "1", ""), *CELLS]
        assert not read_table(tmp_path / "t.xlsx", line_by_line=private).unusable


def test_hidden_rows_are_rows_and_dates_are_of_the_files_calendar(tmp_path: Path) -> None:
    written = openpyxl.Workbook()
    written.epoch = CALENDAR_MAC_1904
    sheet = written.worksheets[0]
    for row in (("PatientID", "taken"), ("P1", date(2024, 3, 1)), ("P2", date(2023, 12, 31))):
        sheet.append(row)
    sheet.row_dimensions[3].hidden = True
    written.save(tmp_path / "t.xlsx")
    for private in (False, True):
        assert cells(tmp_path / "t.xlsx", line_by_line=private) == [
            ("P1", "2024-03-01"),
            ("P2", "2023-12-31"),
        ]


# --- Parquet -----------------------------------------------------------------------------


def test_a_parquets_keys_are_text_or_whole_numbers_line_by_line(tmp_path: Path) -> None:
    """One row makes a program write floats for whole numbers, and with them others' identifiers."""
    path = tmp_path / "t.parquet"
    for kind in (pa.int64(), pa.uint8(), pa.string(), pa.large_string()):
        ids = pa.array([1, 2], pa.int64()).cast(kind)
        parquet.write_table(pa.table({"PatientID": ids, "ill": [1, 0]}), path)
        assert cells(path) == [("1", "1"), ("2", "0")]
    for values in (pa.array([1.0, 2.0]), pa.array([date(2024, 3, 1)] * 2), pa.array([True, None])):
        parquet.write_table(pa.table({"PatientID": values, "ill": [1, 0]}), path)
        assert len(cells(path, line_by_line=False)) == 2
        with pytest.raises(CohortError, match=r"column PatientID has the type .* Write it as text"):
            cells(path)


def test_a_parquets_numbers_mean_the_same_in_each_type(tmp_path: Path) -> None:
    rows = []
    for ill in (pa.array([1, 0]), pa.array([1.0, 0.0]), pa.array(["1.0", "0.0"])):
        table = pa.table({"PatientID": ["A", "B"], "ill": ill})
        parquet.write_table(table, tmp_path / "t.parquet")
        found = read_labels(tmp_path / "t.parquet", ("ill",), with_images=False, by_patient=True)
        rows.append([float(row["ill"]) for row in found.rows])
    assert rows == [[1.0, 0.0]] * 3
