"""A CSV as cells, by the sign that its first line says (sep=;) or shows, in UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from common.errors import CohortError

#: Names of columns by which a header is known (client/labels.py).
KEYS = frozenset({"PatientID", "StudyInstanceUID", "AccessionNumber", "SeriesInstanceUID"})


def read_csv(
    path: Path, *, line_by_line: bool
) -> tuple[list[tuple[int, tuple[str, ...]]], bool]:
    """Return lines with their cells, and whether semicolons part them; CohortError says why not."""
    text = _decoded(path)
    said = _SAID.match(text)
    sign = (said[1] or ",") if said is not None else _parted_by(text)
    try:
        rest = text if said is None else text[said.end() :]
        lines = _lines(rest, sign) if line_by_line else _records(rest, sign)
        first = 1 if said is None else 2
        return [(number + first, row) for number, row in lines], sign == ";"
    except csv.Error as error:
        message = f"Cannot read {path}: {error}. Save it as CSV in UTF-8."
        raise CohortError(message) from error


#: What ends a line; a form feed or a separator of Unicode's does not.
_LINE_END = re.compile(r"\r\n|\r|\n")


def _records(text: str, sign: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the cells of each record behind the place of its last line."""
    # Blanks may stand before a quote.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True)
    for row in reader:
        yield reader.line_num - 1, tuple(map(_unguarded, row))


def _lines(text: str, sign: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the cells of each line behind its place; the header alone may have line breaks."""
    lines = _LINE_END.split(text)
    header = csv.reader((f"{line}\n" for line in lines), delimiter=sign, skipinitialspace=True)
    names: tuple[str, ...] = next(
        (tuple(map(_unguarded, row)) for row in header if any(cell.strip() for cell in row)), ()
    )
    yield header.line_num - 1, names
    for place, line in enumerate(lines[header.line_num :], header.line_num):
        yield place, _cells(line, sign)


def _cells(line: str, sign: str) -> tuple[str, ...]:
    """Return the cells of one line; all of it as one where it cannot be parted."""
    try:
        rows = list(csv.reader([line], delimiter=sign, skipinitialspace=True))
    except csv.Error:  # a NUL, or a cell beyond the module's limit
        return (line,)
    return tuple(_unguarded(cell) for row in rows for cell in row)


#: The first line by which spreadsheets are told the sign that parts cells.
_SAID = re.compile(r"""["']?sep=([^\r\n"'])["']?[;,\t]*\r?(?:\n|\Z)""", re.IGNORECASE)
_SIGNS = ",;\t|"


def _decoded(path: Path) -> str:
    """Return a file's text; what is neither UTF-8 nor UTF-16 could be any of many alphabets."""
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"Cannot read {path}: {error}. Let this user read it."
        raise CohortError(message) from error
    try:
        if data[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            return data.decode("utf-16")
        # utf-8-sig: spreadsheets write a byte order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = (
            f"Cannot read {path}: line {line} holds a character that is not UTF-8, as programs "
            "write that save in the alphabet of their country (Windows-1252). In a spreadsheet "
            'program, save it as "CSV UTF-8", or as XLSX.'
        )
        raise CohortError(message) from error


def _parted_by(text: str) -> str:
    """Return the sign that parts cells, from the header alone: rows of patients have no say."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*("|\Z)', "", header)
    keyed = [sign for sign in _SIGNS if KEYS & {c.strip(" \t\"'") for c in header.split(sign)}]
    return max(keyed or _SIGNS, key=bare.count)


def _unguarded(cell: str) -> str:
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') else cell
