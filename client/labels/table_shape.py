"""Faults of a table as a whole: lines that are no rows, numbers that can be read in two ways.

Both are functions of all rows: they stop a run without privacy, and one with privacy goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from client.dicom.reasons import Reason, Unusable
from client.labels.schema import schema_path
from client.labels.table_files import TextTable
from common.data.cell_values import has_decimal_comma, may_be_thousands

#: Begins the detail of a row that has more cells than the header, or fewer.
MORE, FEWER = "more cells than the header", "fewer cells than the header"
_SIGN_NAMES = {",": "comma", ";": "semicolon", "\t": "tabulator", "|": "bar"}


def with_causes(unusable: Sequence[Unusable], sign: str) -> tuple[Unusable, ...]:
    """Return the list, where rows with too many cells name the sign that parts them."""
    name = _SIGN_NAMES.get(sign, "separator")
    cause = f"; a {name} in a cell parts it, unless the cell is quoted"
    return tuple(
        replace(one, detail=one.detail + cause)
        if sign and one.reason is Reason.ROW_MALFORMED and one.detail.startswith(MORE)
        else one
        for one in unusable
    )


def misshapen(path: Path, unusable: Sequence[Unusable], text: TextTable) -> str:
    """Return what is wrong with a table most of whose lines are none of its header's, if it is."""
    malformed = [one for one in unusable if one.reason is Reason.ROW_MALFORMED]
    apart = {one.what for one in text.unusable if one.reason is Reason.ROW_MALFORMED}
    lines = len(text.lines) - 1 + len(apart)
    if 2 * len(malformed) <= lines:
        return ""
    kinds = {start: [p for p in malformed if p.detail.startswith(start)] for start in (MORE, FEWER)}
    others = [p for p in malformed if not p.detail.startswith((MORE, FEWER))]
    worst = max((*kinds.values(), others), key=len)
    if others and worst is kinds[FEWER]:
        worst = others  # the rest of a cell with line breaks is short
    other = _parted_otherwise(text)
    if other:
        remedy = f"The rows are parted by a {other}, the header is not: write both alike."
    elif worst is kinds[FEWER]:
        remedy = "Export it again with every cell of every row, also those that are empty."
    elif worst is others:
        remedy = "Export the table again."
    elif text.sign == ",":
        remedy = (
            "Decimal commas in a table that is parted by commas do that: write decimal points, or "
            "save it with semicolons, or quote the cells. So do columns that the header lacks."
        )
    else:
        remedy = "Name every column in the header, and quote cells that hold the separator."
    return (
        f"{len(malformed)} of {lines} lines of {path} cannot be used as rows "
        f"({worst[0].what}: {worst[0].detail}). {remedy}"
    )


def _parted_otherwise(text: TextTable) -> str:
    """Return the name of a sign that parts rows which the header's leaves in one piece."""
    if not text.lines or not text.sign:
        return ""
    header, *rows = (cells for _, cells in text.lines)
    whole = [text.sign.join(row) for row in rows if len(row) != len(header)]
    counts = {
        name: sum(row.count(sign) == len(header) - 1 for row in whole)
        for sign, name in _SIGN_NAMES.items()
        if sign != text.sign
    }
    name = max(counts, key=lambda one: counts[one])
    return name if len(header) > 1 and 2 * counts[name] > len(rows) else ""


def two_notations(
    path: Path, columns: Sequence[str], cells: Sequence[tuple[int, tuple[str, ...]]], read: set[str]
) -> str:
    """Return the question what 1.234 is beside decimal commas, where both are in the numbers."""
    places = [place for place, name in enumerate(columns) if name in read]
    commas, either = (
        next(
            (
                (line, row[place].strip())
                for line, row in cells
                for place in places
                if len(row) == len(columns) and is_so(row[place].strip())
            ),
            None,
        )
        for is_so in (has_decimal_comma, may_be_thousands)
    )
    if commas is None or either is None:
        return ""
    return (
        f"Numbers of {path} have decimal commas (line {commas[0]}: {commas[1][:20]}), and "
        f"{either[1]} in line {either[0]} is {either[1].replace('.', '')} or {either[1]}: write "
        f"decimal: comma or decimal: point into {schema_path(path).name}."
    )
