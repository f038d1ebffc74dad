"""Calls of an extension's code: whatever it raises, and whatever it is not, is a refusal.

    an exception, or an exit (sys.exit)        ExtensionRefused
    Ctrl-C of the person who waits             is that

Public: refusing, contract_fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import get_args

from pydantic import BaseModel

from common.config.network_sizes import SizeRule
from common.config.tasks.forms import TaskKind
from common.platform.errors import ExtensionRefused


@contextmanager
def refusing(what: str, remedy: str = "") -> Iterator[None]:
    """Raise ExtensionRefused for what code of others raises; `what` names it and what failed."""
    try:
        yield
    except (ExtensionRefused, KeyboardInterrupt):
        raise
    except BaseException as error:
        message = f"{what}: {type(error).__name__}: {error!s:.300}{remedy}"
        raise ExtensionRefused(message) from error


def contract_fault(found: object) -> str | None:
    """Return which field of a type of common.extensions.contract does not hold what it says."""
    assert dataclasses.is_dataclass(found)  # noqa: S101 - every one of them is
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        expected = _expected(field.name, value)
        if expected is not None:
            return f"{field.name} is {value!r:.100}, expected {expected}"
    return None


def _expected(field: str, value: object) -> str | None:
    """Return what a field should hold; None where it does."""
    match field:
        case "arguments":
            right = isinstance(value, type) and issubclass(value, BaseModel)
            return None if right else "a class of pydantic.BaseModel"
        case "tasks":
            kinds = get_args(TaskKind)
            given = value if isinstance(value, Collection) and not isinstance(value, str) else ()
            right = len(given) > 0 and all(one in kinds for one in given)
            return None if right else f"a set of one or more of {', '.join(kinds)}"
        case "size":
            sides: tuple[object, ...] = ()
            if isinstance(value, SizeRule):
                sides = (value.smallest, value.multiple)
            right = len(sides) > 0 and all(isinstance(s, int) and s >= 1 for s in sides)
            return None if right else "a SizeRule of whole numbers from 1"
        case "lowest" | "highest":
            right = isinstance(value, int | float) and math.isfinite(value)
            return None if right else "a finite number"
        case _:
            return None if callable(value) else "a function"
