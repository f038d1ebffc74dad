"""Suppression of small cells: whose values may be added up and released.

No count of fewer than the smallest cell is told, nor one that could be had by subtracting
released counts from each other. Rows may be images; the patients behind them are counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import Float, Owners
from common.metrics.statistics import Statistics

Bool = NDArray[np.bool_]


def patients_in(owner: Owners, rows: Bool) -> int:
    """Return how many different patients have one of these rows."""
    return len(np.unique(owner[rows]))


def releasable(counts: Float, smallest: int) -> Bool:
    """Return which counts of a known total may be told: zeros, and those not below `smallest`.

    When those that are held back add up to less than `smallest`, the total would give them
    away, so the next smallest is held back too (complementary suppression).
    """
    told = (counts == 0) | (counts >= smallest)
    while 0 < counts[~told].sum() < smallest and (told & (counts > 0)).any():
        told[np.argmin(np.where(told & (counts > 0), counts, np.inf))] = False
    return np.asarray(told)


def counted(rows: Bool, owner: Owners, value: Float, smallest: int) -> Bool:
    """Return which of `rows` may be added up; all or none, but for a few that are left out.

    When 1 to smallest - 1 patients have none of the rows, total - count would tell their number.
    Then so many patients more are left out, evenly spread over `value`, that at least
    `smallest` are.
    """
    inside = np.unique(owner[rows])
    outside = len(np.unique(owner)) - len(inside)
    short = smallest - outside if 0 < outside < smallest else 0
    if len(inside) - short < smallest:
        return np.zeros_like(rows)
    if short == 0:
        return rows.copy()
    first = np.array([value[rows & (owner == patient)][0] for patient in inside])
    places = (np.arange(short) + 0.5) / short * len(inside)
    gone = inside[np.argsort(first, kind="stable")][places.astype(np.int64)]
    return rows & ~np.isin(owner, gone)


def joined(bins: NDArray[np.int64], owner: Owners, smallest: int) -> NDArray[np.int64]:
    """Return each row's range, numbered from low bins to high: `smallest` patients or more each.

    Rows of one bin stay together; what is left over joins the last range. All -1 when
    there are too few patients for one range.
    """
    ranges = np.full(len(bins), -1, np.int64)
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.diff(bins[order]) > 0) + 1
    number, held = 0, set[int]()
    for rows in np.split(order, starts):
        ranges[rows] = number
        held.update(owner[rows].tolist())
        if len(held) >= smallest:
            number, held = number + 1, set()
    if held:
        ranges[ranges == number] = number - 1
    return ranges


def ends(bins: NDArray[np.int64], ranges: NDArray[np.int64], last_bin: int) -> NDArray[np.int64]:
    """Return the last bin of each range; the next begins right after it.

    Ends lie in the middle between patients of two ranges, not at anybody's bin, so that no
    range's end tells where one patient is.
    """
    numbers = np.arange(int(ranges.max()))
    highest = np.array([bins[ranges == n].max() for n in numbers], np.int64)
    lowest = np.array([bins[ranges == n + 1].min() for n in numbers], np.int64)
    return np.append((highest + lowest - 1) // 2, last_bin)


def withhold_small_cells(statistics: Statistics, smallest: int) -> Statistics:
    """Set every count below `smallest` to zero, and all sums when there are too few patients.

    A zero may thus mean none or few. The second wall: a task's `statistics` holds no small
    cell already, nor a sum over a small one, which could not be told from here.
    """
    enough = float(statistics.patients) >= smallest
    return Statistics(
        patients=statistics.patients if enough else np.zeros(()),
        cells={n: np.where(v >= smallest, v, 0.0) for n, v in statistics.cells.items()},
        sums={n: v if enough else np.zeros_like(v) for n, v in statistics.sums.items()},
    )
