"""Metrics of competing risks: incidence by cause, its errors, and who is told apart.

A cause is numbered from 1; 0 is the end of follow-up without any. Another cause ends the risk of
this one: it is no censoring, so that incidence is Aalen and Johansen's (1978), and inverse
probabilities of censoring are those of follow-up that ended before any cause.

Public: aalen_johansen, brier_by_patient, auc_by_cause, cause_table, incidence_of.
"""

from __future__ import annotations

import numpy as np

from common.metrics.intervals import Float, tally
from common.metrics.times.life_table import interval_of
from common.metrics.times.survival import auc_of, censoring, event_weights


def aalen_johansen(time: Float, cause: Float, of: int, at: float, weights: Float) -> Float:
    """Return the part who had the cause by a time, censoring put right; (draws, n) -> (draws,)."""
    times = np.unique(time[(cause > 0) & (time <= at)])
    if not len(times):
        return np.where(weights.sum(axis=1) > 0, 0.0, np.nan)
    at_risk = weights @ (time[:, None] >= times[None, :])
    here = time[:, None] == times[None, :]
    ended = weights @ (here & (cause > 0)[:, None])
    had = weights @ (here & (cause == of)[:, None])
    known = np.maximum(at_risk, 1e-12)
    free = np.cumprod(1 - ended / known, axis=1)
    before = np.concatenate([np.ones((len(free), 1)), free[:, :-1]], axis=1)
    return np.asarray((before * had / known).sum(axis=1))


def brier_by_patient(time: Float, cause: Float, of: int, curve: Float, edges: Float) -> Float:
    """Return each patient's integrated, censoring-weighted squared error (Schoop et al. 2011).

    curve is (n, edges): predicted incidence of the cause at each edge.
    """
    event = (cause > 0).astype(np.float64)
    over = (time[:, None] <= edges[None, :]) & (event[:, None] == 1)
    free = time[:, None] > edges[None, :]
    had = (cause == of).astype(np.float64)[:, None]
    error = over * (had - curve) ** 2 * event_weights(time, event)[:, None]
    error = error + free * curve**2 / censoring(time, event, edges)[None, :]
    middle = 0.5 * (error[:, 1:] + error[:, :-1]) * np.diff(edges)
    return np.asarray(middle.sum(1) / (edges[-1] - edges[0]))


def auc_by_cause(
    horizon: float, time: Float, cause: Float, of: int, risk: Float, weights: Float
) -> Float:
    """Return the AUC of who had the cause by a time against who had nothing until then.

    The first definition of Blanche, Dartigues and Jacqmin-Gadda (2013): others who had another
    cause are neither. Cases are weighted for censoring.
    """
    event = (cause > 0).astype(np.float64)
    case = ((time <= horizon) & (cause == of)) * event_weights(time, event)
    return auc_of(case, (time > horizon).astype(np.float64), risk, weights)


# --- counts by interval and cause ----------------------------------------------------------------


def cause_table(time: Float, cause: Float, causes: int, edges: Float) -> Float:
    """Return (1 + causes, edges + 1) patients: lost, then by cause, by interval."""
    cell = interval_of(time, edges) + (len(edges) + 1) * cause.astype(np.int64)
    return tally(cell, (1 + causes) * (len(edges) + 1)).reshape(1 + causes, -1)


def incidence_of(table: Float, causes: int, of: int, boundary: int) -> Float:
    """Return incidence at the end of an interval of tables, (draws, cells) -> (draws,).

    Who is lost in an interval counts as at risk for half of it, as in life tables.
    """
    held = np.maximum(table, 0.0).reshape(len(table), 1 + causes, -1)
    left = held.sum(axis=1)
    at_risk = left.sum(axis=1, keepdims=True) - left.cumsum(axis=1) + left
    exposed = np.maximum(at_risk - held[:, 0] / 2, 1e-12)
    hazard = np.minimum(held[:, 1:] / exposed[:, None], 1.0)
    free = np.cumprod(np.clip(1 - hazard.sum(axis=1), 0.0, 1.0), axis=1)
    before = np.concatenate([np.ones((len(free), 1)), free[:, :-1]], axis=1)
    found = (before * hazard[:, of - 1])[:, :boundary].sum(axis=1)
    return np.where(left.sum(axis=1) > 0, found, np.nan)
