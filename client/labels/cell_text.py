"""Values of spreadsheets and Parquet as a cell of text."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

from common.data.cell_values import may_be_thousands

#: Spreadsheets keep numbers as binary fractions, exact up to 15 decimal digits.
EXACT = 10**15


def text_of(value: object) -> str:
    """Return a value as a cell of text; TypeError for what no cell can hold."""
    if value is None or value != value:  # noqa: PLR0124 - nan is no value, and not equal to itself
        return ""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case float() | Decimal():
            return _number(value)
        case datetime() if value.timetz() == time(0):
            return value.date().isoformat()
        case date() | time():
            return value.isoformat()
        case str() | int():
            return str(value)
        case _:
            message = f"a {type(value).__name__}"
            raise TypeError(message)


def _number(value: float | Decimal) -> str:
    """Return a stored number so that its point is one, whatever sign the table's texts have."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    text = str(value)
    return f"{text}0" if may_be_thousands(text) else text
