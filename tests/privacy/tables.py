"""Tables of labels as XLSX and Parquet, with rows as a program might store them and none should.

An XLSX is written as XML, since openpyxl stores neither a row that says another's number nor a
cell that is merged away and keeps its value.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import openpyxl
import pyarrow as pa
from openpyxl.styles import NamedStyle
from openpyxl.utils import get_column_letter
from pyarrow import parquet

_SHEET = "xl/worksheets/sheet1.xml"
_NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
#: Cells of column C as a program may have stored them; {r} is the row.
_CELLS = (
    '<c r="C{r}"><f>1/0</f></c>',
    '<c r="C{r}"><f>C{below}</f><v>1</v></c>',
    '<c r="C{r}" t="e"><v>#REF!</v></c>',
    '<c r="C{r}" t="s"><v>999999</v></c>',
    '<c r="C{r}" t="b"><v>maybe</v></c>',
    '<c r="C{r}" t="d"><v>never</v></c>',
    '<c r="C{r}" s="1"><v>1e308</v></c>',
    '<c r="C{r}" s="9999"><v>1</v></c>',
    '<c r="C{r}"><v>12x</v></c>',
    '<c r="C{r}"><v>1e999</v></c>',
    '<c r="C{below}"><v>1</v></c>',
    '<c r="nowhere"><v>1</v></c>',
    '<c r="XFD{r}"><v>1</v></c>',
    '<c r="ZZZZ{r}"><v>1</v></c>',
    '<c t="inlineStr"><is><t>{long}</t></is></c>',
)
#: What a row says of itself.
_ROWS = ('r="{r}"', "", 'r="{below}"', 'r="1048576"', 'r="x"', 'r="{r}" hidden="1"', 'r="0"')
#: Merged cells that begin in a row, or around it.
_AREAS = (
    "A{r}:A{below}",
    "C{r}:D{below}",
    "B{r}:XFD{below}",
    "A1:Z{below}",
    "C{r}:E{r}",
    "C:C",
    "x",
)


def odd_rows(name: str, chance: random.Random, count: int) -> list[str]:
    """Return rows of a sheet as XML, to be filled with `r`, `below` and `long`."""
    identifier = '<c r="A{r}" t="inlineStr"><is><t>' + escape(name) + "</t></is></c>"
    return [
        f"<row {chance.choice(_ROWS)}>{identifier}{chance.choice(_CELLS)}</row>"
        for _ in range(count)
    ]


def odd_areas(chance: random.Random) -> list[str]:
    """Return areas of merged cells, to be filled with `r` and `below`."""
    return chance.sample(_AREAS, chance.randint(1, 4))


def write_xlsx(
    path: Path, rows: Sequence[Mapping[str, object]], odd: Sequence[str], areas: Sequence[str]
) -> None:
    """Write a header, the odd rows and the others, which the odd ones' areas reach into."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    places = {"r": 2 + len(odd), "below": 2 + len(odd) + len(rows), "long": "x" * 140_000}
    lines = [_row(1, dict(zip(header, header, strict=True)), header)]
    lines += [one.format_map(places | {"r": 2 + place}) for place, one in enumerate(odd)]
    lines += [_row(2 + len(odd) + place, row, header) for place, row in enumerate(rows)]
    merged = "".join(f'<mergeCell ref="{area.format_map(places | {"r": 2})}"/>' for area in areas)
    sheet = (
        f'<worksheet xmlns="{_NAMESPACE}"><dimension ref="A1:C2"/><sheetData>{"".join(lines)}'
        f"</sheetData>{f'<mergeCells>{merged}</mergeCells>' if merged else ''}</worksheet>"
    )
    whole = path.with_suffix(".empty")
    book = openpyxl.Workbook()
    book.add_named_style(NamedStyle("day", number_format="yyyy-mm-dd"))
    book.worksheets[0]["A1"].number_format = "yyyy-mm-dd"
    book.create_sheet("others").append(["PatientID", *header])
    book.save(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for part in source.namelist():
            target.writestr(part, sheet if part == _SHEET else source.read(part))
    whole.unlink()


def _row(number: int, row: Mapping[str, object], header: Sequence[str]) -> str:
    cells = "".join(
        _cell(f"{get_column_letter(column)}{number}", row.get(name, ""))
        for column, name in enumerate(header, 1)
    )
    return f'<row r="{number}">{cells}</row>'


def _cell(place: str, value: object) -> str:
    if value == "":
        return ""
    if isinstance(value, int | float):
        return f'<c r="{place}"><v>{value!r}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'


def write_parquet(
    path: Path, rows: Sequence[Mapping[str, object]], odd: Sequence[tuple[str, bytes]]
) -> None:
    """Write the rows as text, before them odd ones of patients, whose bytes may be no text."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    columns = {
        name: pa.array(
            [
                *(whose.encode() if name == "PatientID" else text for whose, text in odd),
                *(str(row.get(name, "")).encode() for row in rows),
            ],
            pa.binary(),
        )
        for name in header
    }
    parquet.write_table(
        pa.table({name: column.view(pa.string()) for name, column in columns.items()}), path
    )
