"""Units of clinical numbers (UCUM), and the pairs that convert by a factor.

A mass concentration and an amount (mg/dL and mmol/L) differ by the substance, a temperature in
degrees Celsius and Fahrenheit by an offset: such pairs are refused, never guessed.
"""

from __future__ import annotations

from fractions import Fraction

#: What people write for a unit's UCUM code.
_ALIASES = {
    "year": "a",
    "years": "a",
    "yr": "a",
    "y": "a",
    "month": "mo",
    "months": "mo",
    "week": "wk",
    "weeks": "wk",
    "day": "d",
    "days": "d",
    "hour": "h",
    "hours": "h",
    "minute": "min",
    "minutes": "min",
    "second": "s",
    "seconds": "s",
    "mmHg": "mm[Hg]",
    "percent": "%",
    "l": "L",
    "ml": "mL",
}
_MONTH = Fraction(36525, 1200)  # days: a twelfth of a Julian year
#: By what is measured: each unit as a number of the first.
_FAMILIES: tuple[dict[str, Fraction], ...] = (
    {"mm": Fraction(1), "cm": Fraction(10), "m": Fraction(1000)},
    {"mg": Fraction(1), "g": Fraction(1000), "kg": Fraction(10**6), "ug": Fraction(1, 1000)},
    {"d": Fraction(1), "wk": Fraction(7), "mo": _MONTH, "a": 12 * _MONTH},
    {"s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)},
    {"mL": Fraction(1), "cm3": Fraction(1), "L": Fraction(1000)},
    {
        "mg/L": Fraction(1),
        "ug/mL": Fraction(1),
        "mg/dL": Fraction(10),
        "g/L": Fraction(1000),
        "g/dL": Fraction(10**4),
        "ug/L": Fraction(1, 1000),
        "ng/mL": Fraction(1, 1000),
        "ug/dL": Fraction(1, 100),
        "ng/L": Fraction(1, 10**6),
        "pg/mL": Fraction(1, 10**6),
    },
    {
        "mol/L": Fraction(1),
        "mmol/L": Fraction(1, 10**3),
        "umol/L": Fraction(1, 10**6),
        "nmol/L": Fraction(1, 10**9),
        "pmol/L": Fraction(1, 10**12),
    },
    {"10*9/L": Fraction(1), "10*3/uL": Fraction(1), "10*6/L": Fraction(1, 1000)},
    {"1": Fraction(1), "%": Fraction(1, 100)},
)


def code_of(unit: str) -> str:
    """Return a unit's UCUM code, as far as it is known."""
    plain = unit.strip().replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    number, slash, volume = plain.partition("/")
    if volume.endswith("l"):
        volume = f"{volume[:-1]}L"
    return f"{_ALIASES.get(number, number)}{slash}{volume}"


def factor(have: str, want: str) -> float | None:
    """Return by what a number in `have` is multiplied to be in `want`, or None: no plain factor."""
    first, second = code_of(have), code_of(want)
    if first == second:
        return 1.0
    for family in _FAMILIES:
        if first in family and second in family:
            return float(family[first] / family[second])
    return None
