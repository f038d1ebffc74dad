"""Confusion matrix: patients by true and predicted class, in cells that may leave a site.

A site's matrix has many small cells. Those of one true class are told as one group, of no fewer
patients than the smallest cell; where they would be fewer, the next smallest cell joins them.
Small classes are left out in the same way. What else is told of the same patients is told of the
same groups (`Told.group`), so that nothing can be subtracted from anything.

    least      the cells that are told, 0 where one is in a group
    most       the same, and the whole group in each cell that it may be in
    middle     the same, and the group spread evenly over those; adds up to the patients
    nearest, farthest
               the same, and the group in the cell nearest to, and farthest from, the true class

All add up between sites.

Public: Decisions, Told, Matrices, decided, told, matrices_of, counted_cells, matrix_metrics,
quadratic_kappa, grade_error, accuracy, f1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.metrics.intervals import Estimate, Float, Owners, of_draws, ratio, tally, unknown
from common.metrics.noised import Scale, bounded_estimate
from common.metrics.score_ranges import farthest
from common.metrics.small_cells import Bool, patients_in
from common.metrics.statistics import Statistics

Integers = NDArray[np.int64]


class Decisions(NamedTuple):
    """A site's patients (or images); never leave the site."""

    truth: Integers  # (n,) true class
    predicted: Integers  # (n,) predicted class
    owner: Owners  # (n,) which patient


class Told(NamedTuple):
    """What may be told of each row; never leaves the site."""

    group: Integers  # (n,) -1: nothing; rows of one number are told together or not at all
    alone: Bool  # (n,) whether the row's cell is told by itself


class Matrices(NamedTuple):
    """Counts by true and predicted class, (classes, classes) each; all add up."""

    least: Float
    most: Float
    middle: Float
    nearest: Float
    farthest: Float


def decided(probability: Float, *, ordered: bool) -> Integers:
    """Return the predicted class, (n,), of probabilities that add up to 1, (n, classes).

    The most probable one; of grades the middle one (their median), which errs least in grades.
    """
    if not ordered:
        return np.asarray(probability.argmax(axis=1), np.int64)
    below = np.nan_to_num(probability, nan=0.0).cumsum(axis=1)[:, :-1]
    return np.asarray((below < 0.5).sum(axis=1), np.int64)


# --- what may leave ----------------------------------------------------------------------


def told(rows: Decisions, classes: int, smallest: int) -> Told:
    """Return which rows are told by themselves, which together, and which not at all."""
    cell = rows.truth * classes + rows.predicted
    alone, group = np.zeros(len(cell), np.bool_), np.full(len(cell), -1, np.int64)
    if patients_in(rows.owner, np.ones_like(alone)) < smallest:
        return Told(group, alone)
    large = _alone(rows.truth, rows.owner, classes, smallest)
    for number in np.unique(rows.truth[large]):
        here = rows.truth == number
        alone[here] = _alone(rows.predicted[here], rows.owner[here], classes, smallest)
    group[large] = np.where(alone, cell, classes**2 + rows.truth)[large]
    return Told(group, alone)


def _alone(place: Integers, owner: Owners, places: int, smallest: int) -> Bool:
    """Return which rows lie where enough patients do; the others are enough, too, or none."""
    held = np.array([patients_in(owner, place == k) for k in range(places)])
    alone = held >= smallest
    while 0 < patients_in(owner, ~alone[place]) < smallest and alone.any():
        alone[np.argmin(np.where(alone, held, np.inf))] = False
    return np.asarray(alone[place])


def matrices_of(rows: Decisions, held: Told, classes: int) -> Matrices:
    """Return a site's matrices, in which no count is of fewer patients than the smallest cell.

    A group may be in every cell of its true class that is not told by itself, also in those that
    hold nobody: five patients in five cells that somebody is in would be one in each.
    """
    every = [np.zeros((classes, classes)) for _ in Matrices._fields]
    least, most, middle, near, far = every
    for number in np.unique(held.group[held.group >= 0]):
        here = held.group == number
        true, count = int(rows.truth[here][0]), float(here.sum())
        alone = bool(held.alone[here][0])
        by_itself = np.unique(rows.predicted[held.alone & (rows.truth == true)])
        places = rows.predicted[here][:1] if alone else np.setdiff1d(range(classes), by_itself)
        most[true, places] += count
        middle[true, places] += count / len(places)
        away = np.abs(places - true)
        near[true, places[away.argmin()]] += count
        far[true, places[away.argmax()]] += count
        if alone:
            least[true, places] += count
    return Matrices(*every)


def matrices_in(statistics: Statistics) -> Matrices:
    """Read merged statistics; of classes without an order, no cell is nearer than another."""
    cells, middle = statistics.cells, statistics.sums["middle"]
    ends = (cells.get("nearest", middle), cells.get("farthest", middle))
    return Matrices(cells["least"], cells["most"], middle, *ends)


def counted_cells(rows: Decisions, classes: int) -> Float:
    """Return (classes x classes,) patients, each in one cell whatever the others are: for noise."""
    return tally(rows.truth * classes + rows.predicted, classes**2)


# --- metrics of matrices, (draws, classes x classes) -> (draws,) ----------------------------


def weighed(rows: Decisions, classes: int, weights: Float) -> Float:
    """Return the matrix of each draw of patients, (draws, classes x classes)."""
    cell = np.eye(classes**2)[rows.truth * classes + rows.predicted]
    return np.asarray(weights @ cell)


def _square(counts: Float) -> Float:
    classes = round(counts.shape[1] ** 0.5)
    return counts.reshape(len(counts), classes, classes)


def _distance(classes: int) -> Float:
    place = np.arange(classes, dtype=np.float64)
    return np.abs(place[:, None] - place[None, :])


def quadratic_kappa(counts: Float) -> Float:
    """Return Cohen's (1968) kappa with quadratic weights; nan where all have one grade."""
    matrix = _square(counts)
    weight = _distance(matrix.shape[1]) ** 2
    true, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    expected = np.einsum("di,dj,ij->d", true, predicted, weight)
    seen = (matrix * weight).sum(axis=(1, 2)) * matrix.sum(axis=(1, 2))
    return 1 - ratio(seen, expected)


def grade_error(counts: Float) -> Float:
    """Return the mean distance between true and predicted grade."""
    matrix = _square(counts)
    wrong = (matrix * _distance(matrix.shape[1])).sum(axis=(1, 2))
    return ratio(wrong, matrix.sum(axis=(1, 2)))


def accuracy(counts: Float) -> Float:
    """Return the part whose predicted class is the true one."""
    matrix = _square(counts)
    return ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def f1(counts: Float) -> Float:
    """Return F1 of each class, (draws, classes); nan where nobody has it and none is told."""
    matrix = _square(counts)
    right = np.diagonal(matrix, axis1=1, axis2=2)
    return ratio(2 * right, matrix.sum(axis=1) + matrix.sum(axis=2))


def macro_f1(counts: Float) -> Float:
    """Return the plain mean of the classes' F1, of those that it is known of."""
    each = f1(counts)
    known = ~np.isnan(each)
    return ratio(np.nan_to_num(each).sum(axis=1), known.sum(axis=1).astype(np.float64))


#: By name: the metric, what it can be, and whether grades alone have it.
_METRICS: dict[str, tuple[Callable[[Float], Float], Callable[[int], Scale], bool]] = {
    "quadratic_kappa": (quadratic_kappa, lambda _: Scale(-1.0, 1.0), True),
    "grade_error": (grade_error, lambda classes: Scale(0.0, classes - 1.0), True),
    "accuracy": (accuracy, lambda _: Scale(0.0, 1.0), False),
    "macro_f1": (macro_f1, lambda _: Scale(0.0, 1.0), False),
}


def of_matrix(*, ordered: bool) -> dict[str, Callable[[Float], Float]]:
    """Return the metrics of a matrix by name."""
    return {name: found for name, (found, _, grades) in _METRICS.items() if ordered or not grades}


def exact_metrics(
    rows: Decisions, classes: int, weights: Float, *, ordered: bool
) -> dict[str, Estimate]:
    """Return every metric from the rows, bootstrapped; the matrices are drawn once."""
    patients = weights.shape[1]
    if patients == 0:
        return dict.fromkeys(of_matrix(ordered=ordered), unknown(0, "no patients"))
    whole, drawn = (weighed(rows, classes, w) for w in (np.ones((1, patients)), weights))
    return {
        name: of_draws(float(metric(whole)[0]), metric(drawn), patients)
        for name, metric in of_matrix(ordered=ordered).items()
    }


def matrix_metrics(counts: Float, noise: float, *, ordered: bool) -> dict[str, Estimate]:
    """Return every metric of merged counts, (classes x classes,), with `noise` on each."""
    classes = round(len(counts) ** 0.5)
    return {
        name: bounded_estimate([counts], noise, value, _METRICS[name][1](classes))
        for name, value in of_matrix(ordered=ordered).items()
    }


def merged_metrics(held: Matrices, *, ordered: bool) -> dict[str, Estimate]:
    """Return every metric of merged matrices; `bound` is how far groups may have moved it."""
    found = matrix_metrics(held.middle.reshape(-1), 0.0, ordered=ordered)
    return {name: _bounded(one, held, name) for name, one in found.items()}


def _bounded(one: Estimate, held: Matrices, name: str) -> Estimate:
    if np.isnan(one.value):
        return one
    low, high = _ends(held, name)
    return replace(one, bound=farthest(one.value, low, high))


def _ends(held: Matrices, name: str) -> tuple[float, float]:
    """Return the least and most that the metric of the patients can be.

    Of kappa: were all groups at the cells nearest to, and farthest from, the truth.
    """
    total, least, most = held.middle.sum(), held.least, held.most
    match name:
        case "accuracy":
            return float(np.trace(least) / total), float(np.trace(most) / total)
        case "macro_f1":
            ends = (_f1_of(least, most, held.middle), _f1_of(most, least, held.middle))
            low, high = (float(np.nanmean(end)) for end in ends)
            return low, high
        case _:
            value = _METRICS[name][0]
            near, far = (float(value(m.reshape(1, -1))[0]) for m in (held.nearest, held.farthest))
            return min(near, far), max(near, far)


def _f1_of(right: Float, wrong: Float, middle: Float) -> Float:
    """Return F1 by class with these counts of right answers and of wrong ones of each column."""
    hits = np.minimum(np.diagonal(right), middle.sum(axis=1))
    false = wrong.sum(axis=0) - np.diagonal(wrong)
    return ratio(2 * hits, hits + false + middle.sum(axis=1))
