"""Metrics of survival: concordance, time-dependent AUC, integrated Brier score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import Estimate, Float, normal_interval, ratio, unknown

Bool = NDArray[np.bool_]


def pairs(time: Float, event: Float, risk: Float) -> tuple[Float, Float]:
    """Return comparable pairs and their concordance, both (n, n): [i, j] i had the event first.

    Harrell's definition: i's event was seen before j's time (or at it, j without event);
    equal risks count half.
    """
    later = (time[None, :] > time[:, None]) | (
        (time[None, :] == time[:, None]) & (event[None, :] == 0)
    )
    comparable = (later & (event[:, None] == 1)).astype(np.float64)
    np.fill_diagonal(comparable, 0.0)
    gap = risk[:, None] - risk[None, :]
    return comparable, comparable * ((gap > 0) + 0.5 * (gap == 0))


def concordance(time: Float, event: Float, risk: Float, weights: Float) -> Float:
    """Return Harrell's C-index; weights (draws, n) -> (draws,)."""
    comparable, concordant = pairs(time, event, risk)
    total = ((weights @ comparable) * weights).sum(axis=1)
    return ratio(((weights @ concordant) * weights).sum(axis=1), total)


def concordance_sums(time: Float, event: Float, risk: Float) -> Float:
    """Return sums over patients, (5,): n, c, n^2, n c, c^2, of pairs n and concordance c each.

    They add up between sites to a C-index stratified by site, and to its variance.
    """
    comparable, concordant = pairs(time, event, risk)
    n = comparable.sum(0) + comparable.sum(1)
    c = concordant.sum(0) + concordant.sum(1)
    return np.array([n.sum(), c.sum(), (n * n).sum(), (n * c).sum(), (c * c).sum()])


def merged_concordance(sums: Float, patients: int) -> Estimate:
    """Return the stratified C-index with the interval of its projection (Hoeffding 1948)."""
    n, c, nn, nc, cc = sums
    if n <= 0:
        return unknown(patients, "withheld: fewer events than the smallest cell")
    value = float(c / n)
    spread = max(cc - 2 * value * nc + value**2 * nn, 0.0)
    return normal_interval(value, 2.0 * float(np.sqrt(spread)) / float(n), patients)


def kaplan_meier(time: Float, event: Float, at: Float) -> Float:
    """Return the survival function just after each time of `at` (Kaplan and Meier 1958)."""
    times = np.unique(time[event == 1])
    at_risk = (time[None, :] >= times[:, None]).sum(1)
    deaths = ((time[None, :] == times[:, None]) & (event[None, :] == 1)).sum(1)
    steps = np.r_[1.0, np.cumprod(1 - deaths / np.maximum(at_risk, 1))]
    return np.asarray(steps[np.searchsorted(times, at, side="right")])


def censoring(time: Float, event: Float, at: Float) -> Float:
    """Return the probability of not yet being censored, never below 0.05 so weights stay finite."""
    return np.maximum(kaplan_meier(time, 1 - event, at), 0.05)


def event_weights(time: Float, event: Float) -> Float:
    """Return each patient's inverse probability of not being censored before their time."""
    # Just before the event: a censoring at the same time comes after it.
    return 1 / censoring(time, event, np.nextafter(time, -np.inf))


def brier_by_patient(time: Float, event: Float, curve: Float, edges: Float) -> Float:
    """Return each patient's integrated, censoring-weighted squared error (Graf et al. 1999).

    curve is (n, edges): predicted survival at each edge.
    """
    died = (time[:, None] <= edges[None, :]) & (event[:, None] == 1)
    alive = time[:, None] > edges[None, :]
    at_edge = censoring(time, event, edges)[None, :]
    error = died * curve**2 * event_weights(time, event)[:, None]
    error = error + alive * (1 - curve) ** 2 / at_edge
    width = edges[-1] - edges[0]
    middle = 0.5 * (error[:, 1:] + error[:, :-1]) * np.diff(edges)
    return np.asarray(middle.sum(1) / width)


def auc_at(horizon: float, time: Float, event: Float, risk: Float, weights: Float) -> Float:
    """Return the cumulative/dynamic AUC at a horizon, cases weighted for censoring (Uno 2007)."""
    case = ((time <= horizon) & (event == 1)) * event_weights(time, event)
    return auc_of(case, (time > horizon).astype(np.float64), risk, weights)


def auc_of(case: Float, control: Float, risk: Float, weights: Float) -> Float:
    """Return how often weighed cases have the higher risk; weights (draws, n) -> (draws,)."""
    gap = risk[:, None] - risk[None, :]
    wins = (gap > 0) + 0.5 * (gap == 0)
    won = (((weights * case) @ wins) * (weights * control)).sum(1)
    return ratio(won, (weights * case).sum(1) * (weights * control).sum(1))
