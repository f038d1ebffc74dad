"""What is wrong with a configuration, in words that say what to type instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def explain(error: ValidationError, root: type[BaseModel], source: str) -> str:
    """Return one line a fault: file, key, value, what was expected, nearest name."""
    lines = (f"{source}: {_line(detail, root)}" for detail in error.errors())
    return "\n".join(dict.fromkeys(lines))


def _line(detail: ErrorDetails, root: type[BaseModel]) -> str:
    place = [str(part) for part in detail["loc"]]
    key = ".".join(_without_tags(place))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key}.{_nearest(place, root)}"
    if detail["type"] == "missing" and key == "privacy":
        return (
            "privacy is missing. Write `privacy: none`, or a section with unit: patient and epsilon"
        )
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    value = detail["input"]
    shown = "" if isinstance(value, dict | BaseModel) else f" is {value!r}"
    return f"{key or 'the configuration'}{shown}: {message}"


#: Names that pydantic puts into a place to say which member of a union it tried.
_TAGS = frozenset({
    "diagnosis", "prognosis", "segmentation", "PatientPrivacy", "literal['none']",
    "constrained-int", "literal['all']", "literal['declared']", "literal['per_site']",
    "constrained-float", "str", "tuple[str, ...]", "float", "int", "bool",
})  # fmt: skip


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
