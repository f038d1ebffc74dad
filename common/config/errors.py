"""Errors in a configuration, with what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

#: Faults that are told of one by one; more are counted.
_MOST_LINES = 20
#: Of a name, a value and an explanation, each as much is shown.
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_REASON = 60, 100, 400


def explain(error: ValidationError, root: type[BaseModel], source: str) -> str:
    """Return one line a fault: file, key, value, what was expected, nearest name.

    The first faults only: somebody else may have written a million of them.
    """
    found = error.errors(include_url=False, include_context=False)
    lines = [f"{source}: {_line(detail, root)}" for detail in found[:_MOST_LINES]]
    if len(found) > _MOST_LINES:
        lines.append(f"{source}: and {len(found) - _MOST_LINES} more faults")
    return "\n".join(dict.fromkeys(lines))


def _line(detail: ErrorDetails, root: type[BaseModel]) -> str:
    place = [_plain(str(part), _LONGEST_NAME) for part in detail["loc"]]
    key = ".".join(_without_tags(place))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}.{_nearest(place, root)}"
    if detail["type"] == "missing" and key == "privacy":
        return (
            "privacy is missing. Write `privacy: none`, or a section with unit: patient and epsilon"
        )
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = _plain(detail["msg"].removeprefix("Value error, "), _LONGEST_REASON)
    value = detail["input"]
    value_shown = _cut(repr(value), _LONGEST_VALUE)
    shown = "" if isinstance(value, dict | BaseModel) else f" is {value_shown}"
    return f"{key or 'the configuration'}{shown}: {message}"


def _plain(text: str, longest: int) -> str:
    """Return text that may stand on a terminal: what would act on it is written as its code."""
    text = _cut(text, longest)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


#: Names that pydantic puts into a place to say which member of a union it tried.
_TAGS = frozenset(
    {
        "diagnosis",
        "prognosis",
        "segmentation",
        "extension",
        "PatientPrivacy",
        "literal['none']",
        "constrained-int",
        "literal['all']",
        "literal['declared']",
        "literal['per_site']",
        "constrained-float",
        "str",
        "tuple[str, ...]",
        "float",
        "int",
        "bool",
    }
)


def _without_tags(place: list[str]) -> Iterator[str]:
    return (part for part in place if part not in _TAGS and not part.startswith("tuple["))


def _nearest(place: list[str], root: type[BaseModel]) -> str:
    models = list(_models(root))
    section = list(_without_tags(place))[-2:-1]
    owners = [
        m for m in models if section and m.__name__.lower().startswith(section[0].rstrip("s"))
    ]
    names = {name for model in owners or models for name in model.model_fields}
    if len(place) == 1:
        names = set(root.model_fields)
    near = difflib.get_close_matches(place[-1], sorted(names), n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""


def _models(root: object) -> Iterator[type[BaseModel]]:
    if isinstance(root, type) and issubclass(root, BaseModel):
        yield root
        for field in root.model_fields.values():
            yield from _models(field.annotation)
    else:
        for part in get_args(root):
            yield from _models(part)
