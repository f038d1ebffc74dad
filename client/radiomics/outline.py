"""The line around what is drawn on a slice, as viewers show a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: (corners, 2): column and row, from the upper left corner of the first pixel (PS3.3 C.18.6.1.2).
Points = NDArray[np.float64]
#: Corners of a line: a value of FL holds some 8,000 (PS3.5 7.1.2), and a report repeats the line.
_MOST = 400

_Corner = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SliceOutline:
    """What is drawn of a structure on the slice that shows most of it."""

    instance: str  # SOPInstanceUID
    frame: int  # of that object, from 0
    points: Points  # closed
    area: float  # of what is drawn there, mm2


def outline_of(within: NDArray[np.bool_]) -> Points:
    """Return the closed line around the largest piece that is drawn, along its pixels' edges.

    `within` is (rows, columns) and holds something. A line of more than 400 corners is made
    simpler; any other encloses as many pixels as are drawn in the piece and its holes.
    """
    lines = [np.array(line, np.float64) for line in _lines(within)]
    line = max(lines, key=_area)
    turns = (np.roll(line, 1, axis=0) - line) * (line - np.roll(line, -1, axis=0))[:, ::-1]
    corners = line[turns[:, 0] != turns[:, 1]]
    if len(corners) > _MOST:
        corners = corners[np.linspace(0, len(corners) - 1, _MOST).round().astype(int)]
    return np.concatenate([corners, corners[:1]])


def whole(rows: int, columns: int) -> Points:
    """Return the closed line around a whole image."""
    return np.array([(0, 0), (columns, 0), (columns, rows), (0, rows), (0, 0)], np.float64)


def _area(line: Points) -> float:
    """Return what a line encloses; negative around a hole."""
    following = np.roll(line, -1, axis=0)
    return float((line[:, 0] * following[:, 1] - following[:, 0] * line[:, 1]).sum() / 2)


def _lines(within: NDArray[np.bool_]) -> Iterator[list[_Corner]]:
    """Yield every line between drawn and not drawn, with what is drawn on its right."""
    edges = _edges(within)
    while edges:
        begin = next(iter(edges))
        here, came = begin, (0, 0)
        line: list[_Corner] = []
        while True:
            line.append(here)
            ends = edges[here]
            # Where two pieces touch at a corner, a line stays at its own: it turns right.
            right = (here[0] - came[1], here[1] + came[0])
            end = right if right in ends else ends[-1]
            ends.remove(end)
            if not ends:
                del edges[here]
            came, here = (end[0] - here[0], end[1] - here[1]), end
            if here == begin:
                break
        yield line


def _edges(within: NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """Return by corner where the edges lead that begin there, clockwise around what is drawn."""
    padded = np.pad(within, 1)
    found: dict[_Corner, list[_Corner]] = {}
    for beside, begin, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # above
        (padded[1:-1, 2:], (1, 0), (1, 1)),  # right
        (padded[2:, 1:-1], (1, 1), (0, 1)),  # below
        (padded[1:-1, :-2], (0, 1), (0, 0)),  # left
    ):
        for row, column in np.argwhere(within & ~beside).tolist():
            corner = (column + begin[0], row + begin[1])
            found.setdefault(corner, []).append((column + end[0], row + end[1]))
    return found
