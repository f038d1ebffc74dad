"""Tables as text from CSV, XLSX or Parquet, with the same cells from each.

A cell is what its reader sees in a spreadsheet, without what a program adds to it:

    12345.0, as spreadsheets and pandas store whole numbers   12345
    7 in a column shown as 0000                               0007
    a date; a date with a time                                2024-03-01; 2024-03-01T08:30:00
    true, false                                               TRUE, FALSE
    nothing, nan, an error such as #N/A                       empty, and the error is listed
    a number of more than 15 digits in a spreadsheet          1.23E+15: its last digits are lost
    cells that were merged                                    the same text in each of them
    ="0012", as exports guard zeros in front                  0012

A CSV is parted by the sign that its first line says (sep=;) or shows: the one by which a column is
a key of DICOM, else the most frequent outside of quotes. Its alphabet: client/labels/csv_text.py.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from client.dicom.reasons import Reason, Unusable
from client.labels.csv_text import read_csv
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from openpyxl.cell.cell import Cell
    from openpyxl.workbook.workbook import Workbook
    from openpyxl.worksheet.worksheet import Worksheet
    from pyarrow import ChunkedArray

#: Spreadsheets keep numbers as binary fractions, exact up to 15 decimal digits.
_EXACT = 10**15
_SPREADSHEETS = frozenset({".xlsx", ".xlsm"})


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """The lines of a table that hold anything, its header first."""

    lines: tuple[tuple[int, tuple[str, ...]], ...]  # line or row in the file, cells
    unusable: tuple[Unusable, ...] = ()  # cells that hold an error
    other_sheets: tuple[str, ...] = ()  # of a spreadsheet whose first was read unasked
    sign: str = ""  # that parts the cells of a CSV


def read_table(path: Path, sheet: str | None = None, *, line_by_line: bool = False) -> TextTable:
    """Read a table by its suffix; CohortError names file, place and what to do.

    `sheet` is a spreadsheet's; without it, its first. `line_by_line`, as a run with privacy wants
    it, reads each line by itself but for the header, so that nobody's row can stop the site: what
    cannot be read of it is listed, a quote which it leaves open swallows nobody else's, and a cell
    of a CSV with a line break in it is malformed.
    """
    if not path.is_file():
        message = (
            f"There is no {path}. Put the table of labels there, or name it as labels in site.yaml."
        )
        raise CohortError(message)
    if path.suffix.lower() in _SPREADSHEETS:
        return _read_spreadsheet(path, sheet, line_by_line=line_by_line)
    if path.suffix.lower() in {".parquet", ".pq"}:
        return _read_parquet(path, line_by_line=line_by_line)
    if path.suffix.lower() in {".xls", ".ods", ".sav", ".sas7bdat", ".dta", ".rds"}:
        message = f"{path} is no table that is read here. Save it as CSV in UTF-8, or as XLSX."
        raise CohortError(message)
    found = read_csv(path, line_by_line=line_by_line)
    return TextTable(
        lines=tuple(_filled(iter(found.lines))), sign=found.sign, unusable=found.unusable
    )


def _filled(lines: Iterator[tuple[int, tuple[str, ...]]]) -> Iterator[tuple[int, tuple[str, ...]]]:
    return (line for line in lines if any(cell.strip() for cell in line[1]))


def _read_spreadsheet(path: Path, sheet: str | None, *, line_by_line: bool) -> TextTable:
    shown, written = _open(path, values=True), _open(path, values=False)
    try:
        if sheet is not None and sheet not in shown.sheetnames:
            message = f"{path} has no sheet {sheet!r}. It has {', '.join(shown.sheetnames)}."
            raise CohortError(message)
        name = sheet or next(iter(shown.sheetnames), "")
        cells, formulas = shown[name], written[name]
        if not hasattr(cells, "iter_rows"):
            message = f"The sheet {name!r} of {path} is a chart. Name another in its schema."
            raise CohortError(message)
        others = tuple(shown.sheetnames[1:]) if sheet is None else ()
        found = _sheet(path, cells, formulas, line_by_line=line_by_line)
        return replace(found, other_sheets=others)
    finally:
        shown.close()
        written.close()


def _open(path: Path, *, values: bool) -> Workbook:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        return load_workbook(path, data_only=values)
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:
        # openpyxl raises these on broken archives; its XML parser's error is a SyntaxError.
        fault: Exception = error
    except (zipfile.BadZipFile, InvalidFileException) as error:
        fault = error
    message = (
        f"Cannot read {path}: {type(fault).__name__}: {fault}. Open it in a spreadsheet program, "
        "take a password off, and save it as XLSX or as CSV in UTF-8."
    )
    raise CohortError(message) from fault


def _sheet(path: Path, cells: Worksheet, formulas: Worksheet, *, line_by_line: bool) -> TextTable:
    merged = {
        (row, column): (area.min_row, area.min_col)
        for area in cells.merged_cells.ranges
        for row in range(area.min_row, area.max_row + 1)
        for column in range(area.min_col, area.max_col + 1)
    }
    lines: list[tuple[int, tuple[str, ...]]] = []
    unusable: list[Unusable] = []
    for number, row in enumerate(cells.iter_rows(), 1):
        texts: list[str] = []
        for column in range(1, len(row) + 1):
            place = merged.get((number, column), (number, column))
            text, fault = _cell_text(cells.cell(*place), formulas.cell(*place))
            is_error = cells.cell(*place).data_type == "e"
            if fault and not is_error and not (line_by_line and any(texts for _, texts in lines)):
                message = f"{path}, cell {fault}"
                raise CohortError(message)
            if fault:
                unusable.append(
                    Unusable(
                        reason=Reason.VALUE_UNUSABLE, what=f"line {number}", detail=f"cell {fault}"
                    )
                )
            texts.append(text)
        while texts and not texts[-1]:
            texts.pop()
        lines.append((number, tuple(texts)))
    return TextTable(lines=_squared(list(_filled(iter(lines)))), unusable=tuple(unusable))


def _squared(
    lines: Sequence[tuple[int, tuple[str, ...]]],
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return the lines with empty cells up to the header's width, which a sheet does not store."""
    width = len(lines[0][1]) if lines else 0
    return tuple((number, (*row, *[""] * (width - len(row)))) for number, row in lines)


def _cell_text(cell: Cell, formula: Cell) -> tuple[str, str]:
    """Return a cell's text, and what is wrong with it: nothing, or its place and the fault."""
    value, place = cell.value, cell.coordinate
    if value is None and formula.data_type == "f":
        fault = "a formula without its value. Open the file in a spreadsheet program and save it."
        return "", f"{place} holds {fault}"
    if cell.data_type == "e":
        return "", f"{place} holds the error {value}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= _EXACT:
            return f"{value:.2E}", ""
        form = str(cell.number_format)
        if value >= 0 and form and set(form) == {"0"}:
            return str(value).zfill(len(form)), ""
    try:
        return text_of(value), ""
    except TypeError as error:
        return "", f"{place} holds {error}. Format it as text."


def text_of(value: object) -> str:
    """Return a value as a cell of text; TypeError for what no cell can hold."""
    if value is None or value != value:  # noqa: PLR0124 - nan is no value, and not equal to itself
        return ""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
        case datetime() if value.timetz() == time(0):
            return value.date().isoformat()
        case date() | time():
            return value.isoformat()
        case str() | int() | Decimal():
            return str(value)
        case _:
            message = f"a {type(value).__name__}"
            raise TypeError(message)


def _read_parquet(path: Path, *, line_by_line: bool) -> TextTable:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        message = f"Cannot read {path}: {error}. Write it again as Parquet, or as CSV in UTF-8."
        raise CohortError(message) from error
    columns: list[list[str]] = []
    unusable: list[Unusable] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        texts, faults = _column_texts(column)
        kind = f"the type {column.type}, which is no cell of a table"
        # A type is the file's, a value somebody's.
        if faults and not (line_by_line and _is_plain(column)):
            why = next(iter(faults.values()))
            message = (
                f"{path}, column {name} has {kind} ({why}). Write it as text, number, date or "
                "true/false."
            )
            raise CohortError(message)
        columns.append(texts)
        unusable += [
            Unusable(
                reason=Reason.VALUE_UNUSABLE,
                what=f"line {place}",
                detail=f"column {name} holds what cannot be read: {why}",
            )
            for place, why in faults.items()
        ]
    lines = [(1, tuple(table.column_names)), *enumerate(zip(*columns, strict=True), 2)]
    return TextTable(lines=tuple(_filled(iter(lines))), unusable=tuple(unusable))


def _column_texts(column: ChunkedArray) -> tuple[list[str], dict[int, str]]:
    """Return a column's cells, and what is wrong by line."""
    import pyarrow as pa

    texts: list[str] = []
    faults: dict[int, str] = {}
    for place, value in enumerate(_values(column), 2):
        try:
            texts.append(text_of(value()))
        except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
            texts.append("")
            faults[place] = str(error)
    return texts, faults


def _is_plain(column: ChunkedArray) -> bool:
    import pyarrow as pa

    kind = column.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return not pa.types.is_nested(kind) and not pa.types.is_binary(kind)


def _values(column: ChunkedArray) -> list[Callable[[], object]]:
    """Return how to have each of a column's values as Python has it, no digit added or lost."""
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # datetime has microseconds; what is finer cannot be a time in a hospital's table.
        return _values(column.cast(pa.timestamp("us", tz=kind.tz), safe=False))
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        short = np.float32 if pa.types.is_float32(kind) else np.float16
        plain = (None if v is None else float(str(short(v))) for v in column.to_pylist())
        return [partial(_same, value) for value in plain]
    return [value.as_py for chunk in column.chunks for value in chunk]


def _same(value: object) -> object:
    return value
