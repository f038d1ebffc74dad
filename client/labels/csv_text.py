"""CSV as cells, by the separator that its first line states or shows.

Unicode is told by its mark, or by the zeros of the header's first letters; the alphabet of a
country by nothing, so it is refused.

    read as records (no privacy)    a cell may have line breaks; a fault of alphabet, or a quote
                                    that nothing closes, stops with one sentence
    read line by line (privacy)     each line by itself, one that cannot be read is listed; only
                                    the header, which is no patient's, stops
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.dicom.reasons import Reason, Unusable
from common.platform.errors import CohortError

#: Columns that name what a row is of, the most specific first; a header is known by them.
KEYS = ("SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")

_Cells = tuple[int, tuple[str, ...]]  # a line's number in the file, its cells


@dataclass(frozen=True, kw_only=True)
class CsvCells:
    """What a CSV holds."""

    lines: tuple[_Cells, ...]
    sign: str  # that parts its cells
    unusable: tuple[Unusable, ...] = ()  # lines that cannot be read


def read_csv(path: Path, *, line_by_line: bool) -> CsvCells:
    """Return lines with their cells; CohortError says why there are none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"Cannot read {path}: {error}. Let this user read it."
        raise CohortError(message) from error
    codec, skipped = _codec_of(data)
    data = data[skipped:]
    lines = _lines_of(data, codec) if line_by_line else _decoded(path, data, codec)
    lines[0] = lines[0] and lines[0].removeprefix("\ufeff")  # two marks
    top = next((place for place, line in enumerate(lines) if line is None or line.strip()), 0)
    said = None if not lines else _SAID.fullmatch(lines[top] or "")
    start = 0 if said is None else top + 1
    header = next((line for line in lines[start:] if line is None or line.strip()), "")
    if header is None:
        raise _not_unicode(path, start + 1, codec)
    sign = (said[1] or ",") if said is not None else ""
    if not sign or sign not in header:
        sign = _parted_by(header)
    parts = _by_line if line_by_line else _records
    faults: list[Unusable] = []
    given = _Lines(path=path, lines=lines, codec=codec, start=start, sign=sign, faults=faults)
    found = tuple(parts(given))
    return CsvCells(lines=found, sign=sign, unusable=tuple(faults))


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """A file's lines, from the header on, and where to list those that cannot be read."""

    path: Path
    lines: Sequence[str | None]  # None: not of the file's alphabet
    codec: str
    start: int
    sign: str
    faults: list[Unusable]

    def refuse(self, place: int, why: str) -> None:
        """List a line."""
        one = Unusable(reason=Reason.ROW_MALFORMED, what=f"line {place + 1}", detail=why)
        self.faults.append(one)

    def texts(self) -> Iterator[str]:
        """Yield the lines as they can be read; CohortError for one that cannot."""
        for place in range(self.start, len(self.lines)):
            text = self.lines[place]
            if text is None:
                raise _not_unicode(self.path, place + 1, self.codec)
            yield f"{text}\n"


#: What ends a line; a form feed or a separator of Unicode's does not.
_LINE_END = re.compile(r"\r\n|\r|\n")
_NUL = "it holds a NUL, which no text has: the file is damaged, or of two alphabets"
_UNCLOSED = (
    "it opens a quote that it does not close; a run with privacy reads each line by itself, so a "
    "cell can hold no line break"
)


def _records(given: _Lines) -> Iterator[_Cells]:
    """Yield the cells of each record behind the place of its last line."""
    # Blanks may stand before a quote.
    reader = csv.reader(given.texts(), delimiter=given.sign, skipinitialspace=True)
    header: tuple[str, ...] = ()
    before = given.start
    while True:
        try:
            row = tuple(map(_unguarded, next(reader)))
        except StopIteration:
            return
        except csv.Error as error:
            raise _too_long(given, before) from error
        end = given.start + reader.line_num
        texts = [given.lines[place] or "" for place in range(before, end)]
        if len(texts) > 1 and (
            _is_open(texts, end, given) or _holds_rows(texts, row, header, given.sign)
        ):
            raise _open_quote(given.path, before + 1)
        before = end
        if not any(cell.strip() for cell in row):
            continue
        if "\0" in "".join(texts):
            _refuse_nul(given, end - 1, is_header=not header)
        elif header and len(texts) > 1 and len(row) != len(header):
            why = f"it goes on over {len(texts)} lines; is a quote in it not closed?"
            given.refuse(end - 1, f"{len(row)} cells, header {len(header)}: {why}")
        else:
            header = header or row
            yield end, row


def _is_open(texts: Sequence[str], end: int, given: _Lines) -> bool:
    """Return whether a record of several lines ends with the file, and not with its quote."""
    return end == len(given.lines) and "".join(texts).count('"') % 2 == 1


def _holds_rows(texts: Sequence[str], row: Sequence[str], header: Sequence[str], sign: str) -> bool:
    """Return whether a cell of several lines holds what looks like rows of the table.

    They have as many cells, and a key that is written like the record's own.
    """
    key = next((place for place, name in enumerate(header) if name.strip() in KEYS), None)
    if key is None or len(row) <= key or len(header) < 2:
        return False
    inside = csv.reader(texts[1:-1], delimiter=sign, quoting=csv.QUOTE_NONE)
    own = _way_of_writing(row[key])
    return any(len(one) == len(header) and _way_of_writing(one[key]) == own for one in inside)


def _way_of_writing(key: str) -> str:
    return re.sub("[^\\W\\d_]+", "A", re.sub(r"\d+", "9", key.strip(' "')))


def _by_line(given: _Lines) -> Iterator[_Cells]:
    """Yield the cells of each line behind its place, the header first.

    Where the header ends, too, is no row's doing: it is the first line that holds anything.
    """
    end = given.start
    names: tuple[str, ...] = ()
    while not any(name.strip() for name in names):
        if end == len(given.lines):
            return
        names = _header_cells(given, end)
        end += 1
    yield end, names
    for place in range(end, len(given.lines)):
        line = given.lines[place]
        if line is None:
            given.refuse(place, f"it holds what is no character of {_name_of(given.codec)}")
        elif "\0" in line:
            given.refuse(place, _NUL)
        else:
            try:
                yield place + 1, _cells(line, given.sign)
            except csv.Error as error:
                given.refuse(place, f"it cannot be parted into cells: {error}")


def _header_cells(given: _Lines, place: int) -> tuple[str, ...]:
    line = given.lines[place] or ""
    if "\0" in line:
        _refuse_nul(given, place, is_header=True)
    try:
        return _cells(line, given.sign)
    except csv.Error as error:
        if str(error) != _UNCLOSED:
            raise _too_long(given, place) from error
        message = (
            f"Cannot read {given.path}: line {place + 1}, its header, opens a quote that it does "
            "not close. A run with privacy reads each line by itself: close the quote, and write "
            "the header on one line."
        )
        raise CohortError(message) from error


def _cells(line: str, sign: str) -> tuple[str, ...]:
    """Return the cells of one line; csv.Error says why it cannot be parted."""
    if '"' in line:
        try:
            list(csv.reader([line], delimiter=sign, skipinitialspace=True, strict=True))
        except csv.Error as error:
            if "end of data" in str(error):
                raise csv.Error(_UNCLOSED) from error
    rows = list(csv.reader([line], delimiter=sign, skipinitialspace=True))
    return tuple(_unguarded(cell) for row in rows for cell in row)


def _refuse_nul(given: _Lines, place: int, *, is_header: bool) -> None:
    if is_header:
        message = f"Cannot read {given.path}: its header cannot be used, as {_NUL}. Export it anew."
        raise CohortError(message)
    given.refuse(place, _NUL)


def _too_long(given: _Lines, place: int) -> CohortError:
    if any('"' in (line or "") for line in given.lines[place : place + 1]):
        return _open_quote(given.path, place + 1)
    return CohortError(
        f"Cannot read {given.path}: line {place + 1} has a cell of more than "
        f"{csv.field_size_limit()} characters. Shorten it, or take it out."
    )


def _open_quote(path: Path, line: int) -> CohortError:
    return CohortError(
        f"Cannot read {path}: line {line} opens a quote that swallows the lines behind it. Close "
        "the quote, or take it out."
    )


#: The first line by which spreadsheets are told the sign that parts cells.
_SAID = re.compile(r"""\s*["']?sep=([^\r\n"'])?["']?[;,\t]*\s*""", re.IGNORECASE)
_SIGNS = ",;\t|"
_MARKS = (  # that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)


def _codec_of(data: bytes) -> tuple[str, int]:
    """Return the alphabet that the first bytes show, and how many of them are a mark.

    They are the header's: no patient has a say.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return codec, len(mark)
    first = [bool(byte) for byte in data[:4]]
    if first == [True, False, True, False]:
        return "utf-16-le", 0
    if first == [False, True, False, True]:
        return "utf-16-be", 0
    return "utf-8", 0


def _decoded(path: Path, data: bytes, codec: str) -> list[str | None]:
    """Return the lines of a file that is all of one alphabet; CohortError says where it is not."""
    try:
        return list(_LINE_END.split(data.decode(codec)))
    except UnicodeDecodeError as error:
        line = len(_LINE_END.split(data[: error.start].decode(codec, "replace")))
        raise _not_unicode(path, line, codec) from error


def _lines_of(data: bytes, codec: str) -> list[str | None]:
    """Return each line by itself, None for one that is not of the file's alphabet."""
    ends = b"|".join(re.escape(end.encode(codec)) for end in ("\r\n", "\r", "\n"))
    found: list[str | None] = []
    for line in re.split(ends, data):
        try:
            found.append(line.decode(codec))
        except UnicodeDecodeError:
            found.append(None)
    return found


def _name_of(codec: str) -> str:
    return "-".join(codec.upper().split("-")[:2])


def _not_unicode(path: Path, line: int, codec: str) -> CohortError:
    if codec != "utf-8":
        return CohortError(
            f"Cannot read {path}: it begins as {_name_of(codec)} does, and line {line} "
            "holds what is no character of that: it is damaged or was cut off. Export it again."
        )
    return CohortError(
        f"Cannot read {path}: line {line} holds a character that is not UTF-8, as programs "
        "write that save in the alphabet of their country (Windows-1252). In a spreadsheet "
        'program, save it as "CSV UTF-8", or as XLSX.'
    )


def _parted_by(header: str) -> str:
    """Return the sign that parts cells, from the header alone: rows of patients have no say."""
    bare = re.sub(r'"[^"]*("|\Z)', "", header)
    keyed = [sign for sign in _SIGNS if set(KEYS) & {c.strip(" \t\"'") for c in header.split(sign)}]
    return max(keyed or _SIGNS, key=bare.count)


def _unguarded(cell: str) -> str:
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') else cell
