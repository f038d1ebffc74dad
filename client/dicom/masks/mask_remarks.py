"""Remarks on masks that are odd and used all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from client.dicom.reasons import Reason, UnusableFile

Tell = Callable[[UnusableFile], None]


def to_nobody(_told: UnusableFile) -> None:
    """Tell nobody."""


def tell_covered(
    structures: Mapping[str, tuple[int, ...]],
    drawn: set[int],
    labels: NDArray[np.uint8],
    tell: Tell,
) -> None:
    """Tell of drawn structures, by number from 1, of which later ones leave nothing."""
    names = list(structures)
    gone = sorted(drawn - set(np.unique(labels).tolist()))
    if gone:
        told = ", ".join(names[number - 1] for number in gone)
        tell(UnusableFile(Reason.MASK_COVERED, f"{told[:80]}: drawn, and under a later structure"))


def unmatched(structures: Mapping[str, tuple[int, ...]], held: Mapping[int, str]) -> str:
    """Return what is to be told where structures have no number in a mask that has others.

    held are the mask's numbers with their names. A structure under another number would count as
    not drawn.
    """
    missing = [
        name for name, wanted in structures.items() if 0 not in wanted and not held.keys() & wanted
    ]
    wanted = {number for numbers in structures.values() for number in numbers}
    others = [f"{number} {name}".strip() for number, name in held.items() if number not in wanted]
    if not missing or not others or 0 in wanted:
        return ""
    return f"nothing for {', '.join(missing)[:60]}; of no structure are {', '.join(others)[:60]}"
