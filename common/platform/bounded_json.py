"""JSON from elsewhere, with bounds that are checked before it is built.

Refused are more bytes, deeper nesting or more values than its place needs, a key twice, numbers
that are none (NaN, Infinity, 1e999) or longer than anybody writes, and halves of characters.
Work is proportional to the length, whatever the content.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

#: What stands between quotes, so that brackets and commas in it are not counted. A text without an
#: end reaches to the end of all: else each quote in it would be tried, and time would be quadratic.
_TEXT = re.compile(r'"(?:[^"\\]++|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)
#: Everything but what opens, closes or parts values.
_OTHER = re.compile(r"[^\[\]{},]++")
#: An escape that stands for half a character; two in a row may be a whole one.
_HALF = re.compile(r"\\u[dD][89abcdefABCDEF]")
#: Digits of a number; 64 bits have 20.
_LONGEST_NUMBER = 40


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How large a text may be."""

    characters: int
    depth: int
    values: int  # of all objects and lists together


def read_json(text: str, bounds: Bounds) -> object:
    """Return what the text says; ValueError says what of it is too much or not JSON."""
    check_bounds(text, bounds)
    found = json.loads(
        text,
        object_pairs_hook=_without_twins,
        parse_constant=_no_number,
        parse_int=_integer,
        parse_float=_real,
    )
    if _HALF.search(text):  # then a half may stand alone, which no file and no terminal takes
        json.dumps(found, ensure_ascii=False).encode()
    return found


def check_bounds(text: str, bounds: Bounds) -> None:
    """Raise ValueError where a text is longer, deeper or fuller than its bounds."""
    if len(text) > bounds.characters:
        message = f"it has {len(text)} characters, expected at most {bounds.characters}"
        raise ValueError(message)
    marks = _OTHER.sub("", _TEXT.sub("", text))
    values = marks.count(",") + marks.count("[") + marks.count("{")
    if values > bounds.values:
        message = f"it has about {values} values, expected at most {bounds.values}"
        raise ValueError(message)
    depth = deepest = 0
    for mark in marks:
        depth += (mark in "[{") - (mark in "]}")
        deepest = max(deepest, depth)
    if deepest > bounds.depth:
        message = f"it is nested {deepest} deep, expected at most {bounds.depth}"
        raise ValueError(message)


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            message = f"the key {key[:60]!r} is given twice"
            raise ValueError(message)
        found[key] = value
    return found


def _no_number(text: str) -> object:
    message = f"{text} is no number"
    raise ValueError(message)


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        message = f"a number has {len(text)} digits, expected at most {_LONGEST_NUMBER}"
        raise ValueError(message)
    return int(text)


def _real(text: str) -> float:
    if len(text) > _LONGEST_NUMBER:
        message = f"a number has {len(text)} characters, expected at most {_LONGEST_NUMBER}"
        raise ValueError(message)
    found = float(text)
    if found in {float("inf"), float("-inf")}:
        message = f"{text} is larger than any number here"
        raise ValueError(message)
    return found
