"""Values of a table's cell: a number, one of several values, yes or no.

A cell is read by itself, never by what stands in other rows: what one patient's row says cannot
change how another's is read.

    50.5    .5    1e3    -2            as they stand
    50,5    1.234,5    1.234.567       a decimal comma, with points between thousands
    1,234.5    1,234,567               a decimal point, with commas between thousands
    1'234.5    1 234,5                 apostrophes or blanks between thousands
    1,234                              1.234 or 1234: no number, until the table says which
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

#: How a table writes numbers. comma, point: its schema says so. semicolons: nobody says, and
#: semicolons part its cells, as spreadsheets write where the decimal sign is a comma.
Notation = Literal["comma", "point", "semicolons", "unknown"]

#: What a cell of two values may hold, in words of several languages.
_YES = frozenset({"true", "t", "yes", "y", "ja", "j", "oui", "wahr", "vrai"})
_NO = frozenset({"false", "f", "no", "n", "nein", "non", "falsch", "faux"})

_SIGN = "([+-]?)"
_PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?([0-9]+,[0-9]*|,[0-9]+)([eE][+-]?[0-9]+)?")
#: Three figures after the only sign: a fraction or thousands.
_EITHER = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")
_POINTS = re.compile(_SIGN + r"([1-9][0-9]{0,2}(?:\.[0-9]{3})+)(?:,([0-9]+))?")
_COMMAS = re.compile(_SIGN + r"([1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.([0-9]+))?")
#: Apostrophes and blanks, narrow and unbreakable ones among them, part nothing but thousands.
_MARKS = "'\u2019 \u00a0\u2009\u202f"
_MARKED = re.compile(_SIGN + rf"([1-9][0-9]{{0,2}}(?:[{_MARKS}][0-9]{{3}})+)(?:[.,]([0-9]+))?")


def number_of(text: str, notation: Notation = "unknown") -> float | None:
    """Return a finite number, or None for what is none or may be two."""
    plain = _plain(text.strip().replace("\u2212", "-"), notation)
    value = math.nan if plain is None else float(plain)
    return value if math.isfinite(value) else None


def is_either(text: str, notation: Notation = "unknown") -> bool:
    """Return whether a text is one number with a decimal comma and another with a point."""
    return bool(_EITHER.fullmatch(text.strip())) and number_of(text, notation) is None


def has_decimal_comma(text: str) -> bool:
    """Return whether a text is a number with a decimal comma, and none otherwise."""
    if "," not in text:
        return False
    return number_of(text, "comma") is not None and number_of(text, "point") is None


def may_be_thousands(text: str) -> bool:
    """Return whether a text such as 1.234 is a thousand where the decimal sign is a comma."""
    return "." in text and _EITHER.fullmatch(text.strip()) is not None


def _plain(text: str, notation: Notation) -> str | None:
    """Return the number as Python writes it."""
    if _EITHER.fullmatch(text):
        return _either(text, notation)
    marked = _MARKED.fullmatch(text)
    if marked is not None:
        return _joined(marked)
    points, commas = _POINTS.fullmatch(text), _COMMAS.fullmatch(text)
    if points is not None:
        return None if notation == "point" else _joined(points)
    if commas is not None:
        return None if notation == "comma" else _joined(commas)
    if _COMMA.fullmatch(text):
        return None if notation == "point" else text.replace(",", ".")
    return text if _PLAIN.fullmatch(text) else None


def _either(text: str, notation: Notation) -> str | None:
    comma = "," in text
    match notation:
        case "comma":
            return text.replace(",", ".") if comma else text.replace(".", "")
        case "point":
            return text.replace(",", "")
        case "semicolons":
            return text.replace(",", ".") if comma else None
        case "unknown":
            return None if comma else text


def _joined(parts: re.Match[str]) -> str:
    sign, thousands, fraction = parts.groups()
    return f"{sign}{re.sub('[^0-9]', '', thousands)}.{fraction or '0'}"


def yes_or_no(text: str) -> float | None:
    """Return 1 for yes, 0 for no, None for what is neither, such as a 2."""
    word = text.strip().lower()
    if word in _YES:
        return 1.0
    if word in _NO:
        return 0.0
    value = number_of(word)
    return value if value in {0.0, 1.0} else None


def one_of(text: str, values: Sequence[str]) -> str | None:
    """Return the value that a cell holds; numbers are the same where they are equal (1.0 and 1).

    Words are the same where every letter is: I and i may be two things.
    """
    wanted = text.strip()
    if wanted in values:
        return wanted
    number = number_of(wanted)
    equal = [value for value in values if number is not None and number_of(value) == number]
    return equal[0] if len(equal) == 1 else None


def near(text: str, values: Sequence[str]) -> str | None:
    """Return the value that a cell may mean: the same but for case, blanks and signs."""
    alike = [value for value in values if _bare(value) == _bare(text)]
    return alike[0] if len(alike) == 1 and _bare(text) else None


def expected_one_of(text: str, values: Sequence[str]) -> str:
    """Return what was expected in place of a cell that is none of some values."""
    meant = near(text, values)
    hint = f" (did you mean {meant}?)" if meant is not None else ""
    return f"one of {', '.join(values)}{hint}"


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
