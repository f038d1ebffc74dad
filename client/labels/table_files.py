"""Tables as text from CSV, XLSX or Parquet, with the same cells from each.

A cell is what its reader sees in a spreadsheet, without what a program adds to it:

    12345.0, as spreadsheets and pandas store whole numbers   12345
    1.234, which a decimal comma would make 1234              1.2340
    7 in a column shown as 0000                               0007
    a date; a date with a time                                2024-03-01; 2024-03-01T08:30:00
    true, false                                               TRUE, FALSE
    nothing, nan, an error such as #N/A                       empty, and the error is listed
    a number of more than 15 digits in a spreadsheet          1.23E+15: its last digits are lost
    cells that were merged                                    client/labels/spreadsheet.py
    ="0012", as exports guard zeros in front                  0012

A CSV is parted by the sign that its first line says (sep=;) or shows: the one by which a column is
a key of DICOM, else the most frequent outside of quotes. Its alphabet: client/labels/csv_text.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from client.dicom.reasons import Reason, Unusable
from client.labels.cell_text import text_of
from client.labels.csv_text import KEYS, read_csv
from client.labels.spreadsheet import read_spreadsheet
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

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
    of a CSV with a line break in it is malformed. A Parquet's types are part of its header: keys
    are text or whole numbers, which are written alike.
    """
    if not path.is_file():
        message = (
            f"There is no {path}. Put the table of labels there, or name it as labels in site.yaml."
        )
        raise CohortError(message)
    if path.suffix.lower() in _SPREADSHEETS:
        sheet_cells = read_spreadsheet(path, sheet, line_by_line=line_by_line)
        return TextTable(
            lines=sheet_cells.lines,
            unusable=sheet_cells.unusable,
            other_sheets=sheet_cells.other_sheets,
        )
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
        if line_by_line and name.strip() in KEYS and not _is_key(column):
            message = (
                f"{path}, column {name} has the type {column.type}: a program may have chosen it "
                "by one of the rows, and with it how all of them are written. Write it as text."
            )
            raise CohortError(message)
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


def _is_key(column: ChunkedArray) -> bool:
    """Return whether a key is text or whole numbers, which are written alike in both types."""
    import pyarrow as pa

    kind = column.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    written = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_so(kind) for is_so in (*written, pa.types.is_integer, pa.types.is_null))


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
