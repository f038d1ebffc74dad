"""UCUM's codes of units, as they stand in a configuration and beside a number."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

#: UCUM's code where a number has none.
NO_UNIT = "1"
#: UCUM's codes have no blank; DICOM holds 16 characters of one (VR SH).
_UCUM = re.compile("[!-~]{1,16}")


def _unit(code: str) -> str:
    if not _UCUM.fullmatch(code):
        message = "expected UCUM's code of a unit, without blanks, such as %, mL, mm or 1 for none"
        raise ValueError(message)
    return code


Unit = Annotated[str, AfterValidator(_unit)]


def after_number(unit: str) -> str:
    """Return a unit as it follows a number; nothing where there is none."""
    return "" if unit == NO_UNIT else f" {unit}"


def in_brackets(unit: str) -> str:
    """Return a unit as it follows a name; nothing where there is none."""
    return "" if unit == NO_UNIT else f" ({unit})"
