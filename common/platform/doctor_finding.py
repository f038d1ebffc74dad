"""Finding of a doctor's check, and the check that both sides share."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from common.platform.code_hash import RELEASE, bundle_hash

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    state: State  # note: it works, and somebody may want to know
    detail: str
    fix: str = ""  # what to type or whom to ask; always there where it is wrong


def packages(side: ModuleType) -> Iterator[Finding]:
    """Look whether `common` is ours: another package of that name would run in our place.

    `side` is the package of the side that looks, client or server.
    """
    import common

    ours, theirs = (Path(p.__file__ or "").resolve().parent for p in (side, common))
    others = set(importlib.metadata.packages_distributions().get("common", [])) - {"wardround"}
    if ours.parent == theirs.parent and not others:
        detail = f"Wardround {RELEASE}, code {bundle_hash()[:16]}"
        yield Finding(check="packages", state="ok", detail=detail)
        return
    who = f", also of {', '.join(sorted(others))}" if others else ""
    yield Finding(
        check="packages",
        state="wrong",
        detail=f"`common` is {theirs}{who}; expected {ours.parent / 'common'} of wardround alone",
        fix="Install Wardround in a virtual environment of its own.",
    )
