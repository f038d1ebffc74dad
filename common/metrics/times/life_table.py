"""Life tables by public interval: Kaplan-Meier curves and ranks that merge.

A table's cells are intervals of time: those that end at the edges, then all that is later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.metrics.auroc_interval import merged_auroc
from common.metrics.intervals import Estimate, Float, normal_interval, tally, unknown
from common.metrics.noised import Value, noised_estimate
from common.metrics.noised_histogram import NOISED_AWAY
from common.metrics.score_ranges import Ranges

#: Bins of risk in the noised table: few, since each adds noise.
RISK_BINS = 8


def interval_of(time: Float, edges: Float) -> NDArray[np.int64]:
    """Return the interval that holds each time; len(edges) is later than all."""
    return np.asarray(np.searchsorted(edges, time, side="left"), np.int64)


def life_table(time: Float, event: Float, edges: Float) -> Float:
    """Return (2, edges + 1) patients: lost to follow-up, and died, by interval."""
    cell = interval_of(time, edges) + (len(edges) + 1) * (event == 1)
    return tally(cell, 2 * (len(edges) + 1)).reshape(2, -1)


def released_table(table: Float, boundary: int, smallest: int) -> Float:
    """Return the table with intervals joined until no cell is small; zeros if that cannot be.

    Joined intervals count in the last of them. Nothing is joined across `boundary`, the first
    interval after the horizon: what is told of the AUC there could be subtracted otherwise.
    """
    told = np.zeros_like(table)
    for start, stop in ((0, boundary), (boundary, table.shape[1])):
        part = _joined(table[:, start:stop], smallest)
        if part is None:
            return np.zeros_like(table)
        told[:, start:stop] = part
    return told


def _joined(table: Float, smallest: int) -> Float | None:
    told, held = np.zeros_like(table), np.zeros(len(table))
    for interval in range(table.shape[1]):
        held = held + table[:, interval]
        if not ((held > 0) & (held < smallest)).any():
            told[:, interval], held = held, np.zeros(len(table))
    if held.any():
        # What is left over joins the last cell that holds anything.
        filled = np.flatnonzero(told.sum(axis=0))
        last = told[:, filled[-1]] + held if len(filled) else held
        if ((last > 0) & (last < smallest)).any():
            return None
        told[:, filled[-1:]] = 0.0
        told[:, -1] = last
    return told


def merged_survival(table: Float) -> tuple[Estimate, ...]:
    """Return survival at the edges with Greenwood's (1926) interval.

    Who is lost in an interval counts as at risk for half of it (the life-table, or actuarial,
    estimate).
    """
    lost, died = table
    patients = round(float(table.sum()))
    if patients == 0:
        return tuple(unknown(0, "withheld: small cells") for _ in died[:-1])
    at_risk = table.sum() - np.cumsum(lost + died) + lost + died
    exposed = np.maximum(at_risk - lost / 2, 1e-12)
    alive = np.cumprod(np.clip(1 - died / exposed, 0, 1))
    spread = np.cumsum(died / np.maximum(exposed * (exposed - died), 1e-12))
    return tuple(
        normal_interval(float(s), float(s * np.sqrt(v)), patients)
        for s, v in zip(alive[:-1], spread[:-1], strict=True)
    )


# --- with noise on the counts -------------------------------------------------------------


def risk_table(time: Float, event: Float, risk: Float, edges: Float) -> Float:
    """Return (RISK_BINS x 2 x (edges + 1),) patients: each in one cell, whatever the others are."""
    # A risk that is no number, as crafted weights give, is some public level, too.
    known = np.clip(np.nan_to_num(risk, nan=0.5), 0.0, 1.0)
    level = np.minimum((known * RISK_BINS).astype(np.int64), RISK_BINS - 1)
    held = np.zeros((RISK_BINS, 2, len(edges) + 1))
    np.add.at(held, (level, (event == 1).astype(np.int64), interval_of(time, edges)), 1.0)
    return held.reshape(-1)


def table_metrics(
    cells: Float, noise: float, edges: int, boundary: int
) -> tuple[Estimate, Estimate]:
    """Return C-index and AUC at the horizon of released cells, with `noise` as variance on each."""
    shape = (RISK_BINS, 2, edges + 1)

    def by_draw(metric: Callable[[Float], Estimate]) -> Value:
        return lambda drawn: np.array([metric(one.reshape(shape)).value for one in drawn])

    def told(metric: Callable[[Float], Estimate]) -> Estimate:
        return noised_estimate(
            [cells], noise, by_draw(metric), lambda held: metric(held.reshape(shape))
        )

    return told(table_concordance), told(lambda held: table_auc(held, boundary))


def table_concordance(held: Float) -> Estimate:
    """Return the C-index over pairs of different intervals; equal levels of risk count half.

    `bound` is half the share of those, for these pairs; pairs inside an interval are left out.
    """
    died, lost = held[:, 1], held[:, 0]
    later = (died + lost).sum(axis=0)[::-1].cumsum()[::-1] - (died + lost).sum(axis=0)
    # Lost in the very interval: at risk when the death came, or not; not counted.
    comparable = (died.sum(axis=0) * later).sum()
    patients = round(float(held.sum()))
    if comparable <= 0:
        return unknown(patients, NOISED_AWAY)
    after = (died + lost)[:, ::-1].cumsum(axis=1)[:, ::-1] - (died + lost)
    below = after.cumsum(axis=0) - after
    won, tied = (died * below).sum(), (died * after).sum()
    value = float((won + 0.5 * tied) / comparable)
    events = max(float(died.sum()), 1.0)
    # As wide as an AUROC of so many events against all others: an approximation.
    error = float(np.sqrt(value * (1 - value) / events))
    return normal_interval(value, error, patients, float(0.5 * tied / comparable))


def table_auc(held: Float, boundary: int) -> Estimate:
    """Return the AUC at the horizon, without weights for who was lost before."""
    cases = held[:, 1, :boundary].sum(axis=1)
    controls = held[:, :, boundary:].sum(axis=(1, 2))
    positive, negative = Ranges(cases, cases, cases), Ranges(controls, controls, controls)
    return merged_auroc(positive, negative, cases.sum(), controls.sum())
