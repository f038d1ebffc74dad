"""Cells of an XLSX as they are stored, each row from what stands in it alone.

hidden rows, filters, the sheet's size    count for nothing: what is stored is read
a formula                                 its value as it was saved
a cell that cannot be read                empty, with its fault; the others of its row stay
merged cells                              hold one text, which the first of them stores:

    read as a whole (no privacy)      it is the text of each of them
    read line by line (privacy)       it is that of those in its own row. The rows below keep
                                      what they store themselves, mostly nothing, and are
                                      listed: nobody's row says what another's holds
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from client.dicom.reasons import Reason, Unusable
from client.labels.cell_text import EXACT, text_of
from common.platform.errors import CohortError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from openpyxl.workbook.workbook import Workbook
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ROW, _CELL, _VALUE, _FORMULA, _INLINE, _MERGED = (
    _MAIN + name for name in ("row", "c", "v", "f", "is", "mergeCell")
)
#: XFD and 1,048,576: a spreadsheet has no more columns and rows.
_COLUMNS, _ROWS = 16_384, 1_048_576


class SheetCells(NamedTuple):
    """What a sheet holds."""

    lines: tuple[tuple[int, tuple[str, ...]], ...]  # place of a row that holds anything, its cells
    unusable: tuple[Unusable, ...]  # cells that hold an error, or what cannot be read
    other_sheets: tuple[str, ...]  # where the first was read unasked


def read_spreadsheet(path: Path, sheet: str | None, *, line_by_line: bool) -> SheetCells:
    """Read a sheet, without a name the first; CohortError names file, place and what to do.

    What cannot be read of a row stops, or is listed where the table is read `line_by_line`.
    """
    book = _open(path)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            message = f"{path} has no sheet {sheet!r}. It has {', '.join(book.sheetnames)}."
            raise CohortError(message)
        name = sheet or next(iter(book.sheetnames), "")
        others = tuple(book.sheetnames[1:]) if sheet is None else ()
        found = book[name]
        if not hasattr(found, "iter_rows"):
            message = f"The sheet {name!r} of {path} is a chart. Name another in its schema."
            raise CohortError(message)
        try:
            stored = _Stored.of(found)
        except Exception as error:
            raise _unreadable(path, error) from error
    finally:
        book.close()
    lines, unusable = _texts(path, stored, line_by_line=line_by_line)
    return SheetCells(lines=lines, unusable=unusable, other_sheets=others)


def _open(path: Path) -> Workbook:
    from openpyxl import load_workbook

    try:
        return load_workbook(path, read_only=True, data_only=True)
    except Exception as error:
        # openpyxl raises what its parts raise on broken archives, XML among it.
        raise _unreadable(path, error) from error


def _unreadable(path: Path, fault: Exception) -> CohortError:
    said = f"{type(fault).__name__}: {fault}"
    if isinstance(fault, zipfile.BadZipFile):
        said = f"{said} (no XLSX)"
    return CohortError(
        f"Cannot read {path}: {said}. Open it in a spreadsheet program, take a password off, and "
        "save it as XLSX or as CSV in UTF-8."
    )


# --- what is stored ------------------------------------------------------------------------


class _CellText(NamedTuple):
    text: str
    fault: str = ""
    is_error: bool = False  # #N/A and the like, which stop nothing


_EMPTY = _CellText("")


@dataclass(frozen=True, kw_only=True)
class _Row:
    number: int  # that the row says, by which merged cells name it
    cells: dict[int, _CellText]  # by column, from 1
    fault: str = ""  # of the row as a whole


class _Area(NamedTuple):
    """Merged cells: columns and rows, the last ones included."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A sheet's rows in their order, and its merged cells."""

    rows: list[_Row]
    areas: list[_Area]

    @classmethod
    def of(cls, sheet: ReadOnlyWorksheet) -> _Stored:
        """Read the sheet once, a row at a time."""
        from openpyxl.xml.functions import iterparse

        cells, found = _CellReader(sheet), cls(rows=[], areas=[])
        number = 0
        # openpyxl has no public way to a sheet's XML, and its own reader gives up at the first
        # cell that it cannot read.
        with sheet._get_source() as source:  # noqa: SLF001
            for _, element in iterparse(source):
                if element.tag == _ROW:
                    row = cells.row(element, number + 1)
                    found.rows.append(row)
                    number = row.number
                    element.clear()
                elif element.tag == _MERGED:
                    found.areas.extend(_area(element.get("ref", "")))
        return found


def _area(text: str) -> Iterator[_Area]:
    """Yield the area of a text such as B2:D5; nothing for one that names none."""
    from openpyxl.utils import range_boundaries

    try:
        left, top, right, bottom = range_boundaries(text)
    except (ValueError, TypeError):
        return
    if left and top and right and bottom:
        yield _Area(left, top, min(right, _COLUMNS), min(bottom, _ROWS))


class _Format(NamedTuple):
    """How a spreadsheet shows a number."""

    text: str  # such as 0000 or yyyy-mm-dd
    is_date: bool
    is_length: bool  # of time


@dataclass(frozen=True)
class _CellReader:
    """Reads cells with the strings and formats that a workbook's sheets share."""

    sheet: ReadOnlyWorksheet
    formats: dict[int, _Format] = field(default_factory=dict)

    @cached_property
    def strings(self) -> Sequence[str]:
        """Texts by number."""
        found: Sequence[str] = self.sheet._shared_strings  # noqa: SLF001 - openpyxl has no other
        return found

    def row(self, element: Element, expected: int) -> _Row:
        """Return a row; cells that say another row are this one's all the same."""
        said = element.get("r", "")
        number = int(said) if said.isascii() and said.isdigit() and len(said) < 9 else expected
        cells: dict[int, _CellText] = {}
        column = 0
        for cell in element:
            if cell.tag != _CELL:
                continue
            try:
                column = _column(cell.get("r", ""), column)
            except ValueError:
                fault = "it has a cell whose place is none"
                return _Row(number=number, cells={}, fault=fault)
            cells[column] = self._cell(cell)
        return _Row(number=number, cells=cells)

    def _cell(self, cell: Element) -> _CellText:
        try:
            return self._text(cell)
        except Exception as error:  # noqa: BLE001 - whatever it holds, it is one cell's
            return _CellText("", f"what cannot be read ({type(error).__name__})")

    def _text(self, cell: Element) -> _CellText:
        kind, stored = cell.get("t", "n"), cell.findtext(_VALUE)
        inline = cell.find(_INLINE)
        if kind == "inlineStr":
            return _CellText("" if inline is None else _joined(inline))
        if cell.find(_FORMULA) is not None and not stored and (kind, stored) != ("str", ""):
            fault = "a formula without its value. Open the file in a spreadsheet program and save "
            return _CellText("", f"{fault}it.")
        if not stored:
            return _EMPTY
        if kind == "e":
            return _CellText("", f"the error {stored}", is_error=True)
        try:
            return self._shown(kind, stored, self._format(int(cell.get("s", "0"))))
        except TypeError as error:
            return _CellText("", f"{error}. Format it as text.")

    def _shown(self, kind: str, stored: str, form: _Format) -> _CellText:
        """Return the text of a value, as a spreadsheet shows it."""
        from openpyxl.utils.datetime import from_ISO8601

        match kind:
            case "s":
                return _CellText(self.strings[int(stored)])
            case "b":
                return _CellText(text_of(bool(int(stored))))
            case "d":
                return _CellText(text_of(from_ISO8601(stored)))
            case "n":
                return self._number(stored, form)
            case _:
                return _CellText(stored)

    def _number(self, stored: str, form: _Format) -> _CellText:
        from openpyxl.utils.datetime import from_excel

        value = float(stored) if set(stored) & set(".eEnN") else int(stored)
        if form.is_date:
            try:
                day = from_excel(value, self.sheet.parent.epoch, timedelta=form.is_length)
            except (OverflowError, ValueError):
                return _CellText("", "the error #VALUE!", is_error=True)
            return _CellText(text_of(day))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int):
            if abs(value) >= EXACT:
                return _CellText(f"{value:.2E}")
            if value >= 0 and set(form.text) == {"0"}:
                return _CellText(str(value).zfill(len(form.text)))
        return _CellText(text_of(value))

    def _format(self, style: int) -> _Format:
        """Return the number format of a style."""
        from openpyxl.cell.read_only import ReadOnlyCell
        from openpyxl.styles.numbers import is_date_format, is_timedelta_format

        if style not in self.formats:
            cell = ReadOnlyCell(self.sheet, 1, 1, None, style_id=style)
            text = str(cell.number_format or "")
            self.formats[style] = _Format(text, is_date_format(text), is_timedelta_format(text))
        return self.formats[style]


def _column(place: str, before: int) -> int:
    """Return the column of a place such as B3, or the next one; ValueError for what is none."""
    from openpyxl.utils.cell import column_index_from_string

    if not place:
        return before + 1
    column: int = column_index_from_string(place.rstrip("0123456789"))
    if column > _COLUMNS:
        message = f"column {column}"
        raise ValueError(message)
    return column


def _joined(inline: Element) -> str:
    from openpyxl.cell.text import Text

    return str(Text.from_tree(inline).content)


# --- what it means -------------------------------------------------------------------------


_Lines = tuple[tuple[int, tuple[str, ...]], ...]


def _texts(
    path: Path, stored: _Stored, *, line_by_line: bool
) -> tuple[_Lines, tuple[Unusable, ...]]:
    """Return the rows that hold anything, up to the header's width at least, and what is odd."""
    lines: list[tuple[int, tuple[str, ...]]] = []
    unusable: list[Unusable] = []
    width = line = 0
    merged = _Merged(stored)
    for row in stored.rows:
        line = max(line + 1, row.number)
        stops = not (line_by_line and width)  # the header is nobody's row
        if row.fault:
            if stops:
                message = f"{path}, line {line}: {row.fault}."
                raise CohortError(message)
            unusable.append(_odd(Reason.ROW_MALFORMED, line, row.fault))
            continue
        cells, foreign = merged.of(row, line_by_line=line_by_line, is_header=not width)
        last = max((column for column, cell in cells.items() if cell.text), default=0)
        faults = {column: cell for column, cell in cells.items() if cell.fault}
        for column, cell in sorted(faults.items()):
            told = f"cell {_place(column, row.number)} holds {cell.fault}"
            if stops and not cell.is_error:
                message = f"{path}, {told}"
                raise CohortError(message)
            unusable.append(_odd(Reason.VALUE_UNUSABLE, line, told))
        if foreign:
            unusable.append(_odd(Reason.VALUE_UNUSABLE, line, foreign))
        texts = [cells.get(column, _EMPTY).text for column in range(1, max(last, width) + 1)]
        if any(text.strip() for text in texts):
            width = width or last
            lines.append((line, tuple(texts)))
    return tuple(lines), tuple(unusable)


def _odd(reason: Reason, line: int, detail: str) -> Unusable:
    return Unusable(reason=reason, what=f"line {line}", detail=detail)


def _place(column: int, row: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"{get_column_letter(column)}{row}"


class _Merged:
    """Gives cells the texts of those that they are merged with; asked row by row, from the top."""

    def __init__(self, stored: _Stored) -> None:
        self._first = {row.number: row.cells for row in reversed(stored.rows)}
        self._waiting = sorted(stored.areas, key=lambda area: area.top, reverse=True)
        self._open: list[_Area] = []
        self._of_row: dict[int, list[_Area]] = defaultdict(list)
        for area in stored.areas:
            self._of_row[area.top].append(area)

    def of(
        self, row: _Row, *, line_by_line: bool, is_header: bool
    ) -> tuple[dict[int, _CellText], str]:
        """Return a row's cells, and which of them is merged with another row's, if any is.

        Line by line the cells follow from the row and the areas that begin in it alone; those of
        the header from what is merged within it.
        """
        cells, areas = dict(row.cells), self._from_above(row.number)
        above = [area for area in areas if line_by_line and area.top < row.number]
        if line_by_line:
            areas = self._of_row.get(row.number, [])
            areas = [area for area in areas if area.bottom == area.top or not is_header]
        for area in areas:
            anchor = row.cells if area.top == row.number else self._first.get(area.top, {})
            text = anchor.get(area.left, _EMPTY)
            for column in range(area.left, area.right + 1):
                cells[column] = text
        if not above or is_header:
            return cells, ""
        foreign = above[0]
        return cells, (
            f"cell {_place(foreign.left, row.number)} is merged with "
            f"{_place(foreign.left, foreign.top)}, of another row: what it stores itself is taken, "
            "and that is mostly nothing"
        )

    def _from_above(self, number: int) -> list[_Area]:
        """Return the areas that this row is in."""
        while self._waiting and self._waiting[-1].top <= number:
            self._open.append(self._waiting.pop())
        self._open = [area for area in self._open if area.bottom >= number]
        return [area for area in self._open if area.top <= number]
