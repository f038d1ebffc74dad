"""Values of FHIR R4 resources as text, dates and codes."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import ValidationError

_UCUM = "http://unitsofmeasure.org"


class UnusableResource(Exception):
    """A resource that cannot be used; says why."""


def codes_of(concept: object) -> frozenset[str]:
    """Return a concept's codes as system|code."""
    return frozenset(
        f"{coding.system or ''}|{coding.code}"
        for coding in getattr(concept, "coding", None) or ()
        if coding.code
    )


def not_fhir(error: ValidationError) -> str:
    """Return what is wrong with a resource that is no FHIR."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"is not FHIR R4: {place}: {first['msg']}"[:200]


def unknown_code(field: str, code: object) -> UnusableResource:
    """Return what is raised for a code that no such field can have."""
    return UnusableResource(f"{field} {str(code)[:20]!r} is no code that FHIR has for it")


def day_of(value: object) -> date | None:
    """Return the day of a FHIR date; a month or a year alone is no day."""
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if value is not None:
        message = f"the date {str(value)[:20]} has no day"
        raise UnusableResource(message)
    return None


def birthday_of(value: object) -> date | None:
    """Return the birthday; a year or month alone is taken at its middle."""
    parts = str(value).split("-") if isinstance(value, str) else []
    try:
        if len(parts) == 1:
            return date(int(parts[0]), 7, 1)
        if len(parts) == 2:
            return date(int(parts[0]), int(parts[1]), 15)
    except ValueError:
        return None
    return day_of(value)


def start_of(period: object) -> date | None:
    """Return the day on which a period began."""
    return day_of(getattr(period, "start", None))


def value_of(one: object) -> tuple[str, str]:
    """Return an Observation's value and unit as text (FHIR R4 10.1.3, value[x])."""
    quantity = getattr(one, "valueQuantity", None)
    if quantity is not None:
        if quantity.value is None or quantity.comparator is not None:
            message = f"has no exact value ({quantity.comparator or 'none'})"
            raise UnusableResource(message)
        ucum = quantity.code if quantity.system in {None, _UCUM} else None
        return format(quantity.value, "f"), str(ucum or quantity.unit or "")
    concept = getattr(one, "valueCodeableConcept", None)
    if concept is not None:
        coding = next(iter(concept.coding or ()), None)
        return str(coding.code if coding is not None and coding.code else concept.text or ""), ""
    for name in ("valueString", "valueInteger"):
        value = getattr(one, name, None)
        if value is not None:
            return str(value), ""
    flag = getattr(one, "valueBoolean", None)
    if flag is not None:
        return str(int(flag)), ""
    message = "has no value"
    raise UnusableResource(message)
