"""Ranges of a number between public edges, and their names in tables of counts."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

#: Row of those of whom a value is not known.
UNKNOWN = "unknown"


def bins(edges: tuple[float, ...]) -> tuple[str, ...]:
    """Return the names of the ranges between edges, the open last one, and `unknown`."""
    inner = tuple(
        f"below {high:g}" if low == -math.inf else f"{low:g} to {high:g}"
        for low, high in pairwise(edges)
    )
    return (*inner, f"{edges[-1]:g} and more", UNKNOWN)


def bin_of(value: float | None, edges: tuple[float, ...]) -> str:
    """Return the name of a value's range: from its low end on, below its high end."""
    names = bins(edges)
    if value is None or not math.isfinite(value) or value < edges[0]:
        return UNKNOWN
    return names[bisect_right(edges, value) - 1]
