"""Metrics of grades, which have an order: kappa, error in grades, AUROC of each cut.

A cut lies above each grade but the highest; probabilities of lying above them have one order of
patients at all cuts, since one score decides (common/tasks/ordinal.py). So what is told of them is
one table, of patients by grade and by range of the mean over the cuts, and no cut has a table of
its own that could be subtracted from another's.

Public: Graded, exact, released, noisable, of_released, of_noised, names_of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from common.metrics import noised, noised_histogram
from common.metrics.auroc_interval import auroc, auroc_of_counts, merged_auroc
from common.metrics.classification import RELIABILITY_BINS, reliability_bin
from common.metrics.decisions.confusion import (
    Decisions,
    Told,
    counted_cells,
    decided,
    exact_metrics,
    matrices_in,
    matrices_of,
    matrix_metrics,
    merged_metrics,
    told,
)
from common.metrics.intervals import (
    Estimate,
    Float,
    Owners,
    bootstrapped,
    mean_estimate,
    tally,
    unknown,
    weighted_mean,
)
from common.metrics.noised_histogram import Histogram, area
from common.metrics.score_ranges import BINS, Ranges, ranges_of
from common.metrics.statistics import Statistics

RANKED = "ranked_probability"
_TOO_FINE = "not told where counts are noised: few bins with noise on each do not show it"


class Graded(NamedTuple):
    """A site's patients (or images); never leave the site."""

    truth: Float  # (n,) grade, from 0
    probability: Float  # (n, grades)
    owner: Owners  # (n,) which patient

    @property
    def grades(self) -> int:
        """Number of grades."""
        return int(self.probability.shape[1])

    @property
    def above(self) -> Float:
        """Return the probability of lying above each cut, (n, grades - 1)."""
        return np.asarray(1 - self.probability.cumsum(axis=1)[:, :-1])

    @property
    def is_above(self) -> Float:
        """Return 1 where the true grade lies above each cut, (n, grades - 1)."""
        return (self.truth[:, None] > np.arange(self.grades - 1)).astype(np.float64)

    @property
    def decisions(self) -> Decisions:
        """Return true and predicted grade."""
        truth = self.truth.astype(np.int64)
        return Decisions(truth, decided(self.probability, ordered=True), self.owner)

    @property
    def ranked(self) -> Float:
        """Return the ranked probability score of each row (Epstein 1969), 0 to 1."""
        return np.asarray(((self.above - self.is_above) ** 2).mean(axis=1))


def names_of(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each cut's AUROC."""
    return tuple(f"auroc_above_{name}" for name in classes[:-1])


def exact(held: Graded, weights: Float, classes: Sequence[str]) -> dict[str, Estimate]:
    """Return every metric from the scores, bootstrapped."""
    found = exact_metrics(held.decisions, held.grades, weights, ordered=True)
    for cut, name in enumerate(names_of(classes)):
        area = partial(auroc, held.above[:, cut], held.is_above[:, cut])
        found[name] = bootstrapped(area, weights)
    return found | {RANKED: bootstrapped(partial(weighted_mean, held.ranked), weights)}


# --- what may leave ----------------------------------------------------------------------


def released(held: Graded, smallest: int) -> tuple[dict[str, Float], dict[str, Float]]:
    """Return cells and sums: matrices, ranges of the score by grade, calibration of each cut."""
    rows = held.decisions
    groups = told(rows, held.grades, smallest)
    matrices = matrices_of(rows, groups, held.grades)
    ranges, spread, reliability, predicted = _ranges(held, groups, smallest)
    error = held.ranked if (groups.group >= 0).any() else np.zeros(0)
    cells = {name: getattr(matrices, name) for name in ("least", "most", "nearest", "farthest")}
    return (
        cells | {"ranges": ranges, "reliability": reliability},
        {
            "middle": matrices.middle,
            "spread": spread,
            "predicted": predicted,
            RANKED: np.array([float(len(error)), error.sum(), (error**2).sum()]),
        },
    )


def _ranges(held: Graded, groups: Told, smallest: int) -> tuple[Float, Float, Float, Float]:
    """Return ends (grades, 2, BINS), spread (grades, BINS), calibration by cut, its sums.

    A range is of one group, so that every count is of whole groups' parts. The calibration is made
    of the same ranges, each in the bin of its mean probability.
    """
    cuts = held.grades - 1
    ends, spread = np.zeros((held.grades, 2, BINS)), np.zeros((held.grades, BINS))
    table, predicted = np.zeros((cuts, 2, RELIABILITY_BINS)), np.zeros((cuts, RELIABILITY_BINS))
    for group in np.unique(groups.group[groups.group >= 0]):
        here = groups.group == group
        grade, above = int(held.truth[here][0]), held.above[here]
        part, number = ranges_of(above.mean(axis=1), held.owner[here], smallest)
        ends[grade] += np.stack([part.first, part.last])
        spread[grade] += part.spread
        count = tally(number, 1)
        for cut in range(cuts):
            total = tally(number, 1, above[:, cut])
            place = reliability_bin(total / count)
            table[cut, int(grade > cut)] += tally(place, RELIABILITY_BINS, count)
            predicted[cut] += tally(place, RELIABILITY_BINS, total)
    return ends, spread, table, predicted


def noisable(held: Graded) -> Statistics:
    """Return one patient in one cell of each row, for noise: by grade and score, and the matrix."""
    known = np.nan_to_num(held.probability, nan=1 / held.grades, posinf=1.0, neginf=0.0)
    owner, columns = held.owner, [*known.T, held.truth]
    each = [noised_histogram.by_patient(column, owner) for column in columns]
    truth = np.rint(each[-1])
    patients = Graded(truth, np.stack(each[:-1], axis=1), np.arange(len(truth)))
    score = np.clip(patients.above.mean(axis=1), 0.0, 1.0)
    place = truth.astype(np.int64) * noised_histogram.BINS + noised_histogram.bin_of(score)
    cells = {
        "histogram": tally(place, held.grades * noised_histogram.BINS)[None],
        "matrix": counted_cells(patients.decisions, held.grades)[None],
    }
    return Statistics(patients=np.zeros(()), cells=cells, sums={})


# --- what was merged ---------------------------------------------------------------------


def of_released(statistics: Statistics, classes: Sequence[str]) -> dict[str, Estimate]:
    """Return every metric of merged cells and sums."""
    cells, sums = statistics.cells, statistics.sums
    found = merged_metrics(matrices_in(statistics), ordered=True)
    for cut, name in enumerate(names_of(classes)):
        low, high = (
            Ranges(
                cells["ranges"][part, 0].sum(axis=0),
                cells["ranges"][part, 1].sum(axis=0),
                sums["spread"][part].sum(axis=0),
            )
            for part in (slice(cut + 1), slice(cut + 1, None))
        )
        found[name] = merged_auroc(high, low, float(high.first.sum()), float(low.first.sum()))
    count, total, squared = sums[RANKED]
    return found | {RANKED: mean_estimate(total, squared, count)}


def of_noised(statistics: Statistics, classes: Sequence[str]) -> dict[str, Estimate]:
    """Return every metric of noised cells; those that few bins do not show say so."""
    matrix = statistics.cells["matrix"][0]
    found = matrix_metrics(matrix, statistics.noise, ordered=True)
    by_grade = statistics.cells["histogram"][0].reshape(len(classes), -1)
    for cut, name in enumerate(names_of(classes)):
        parts = (by_grade[: cut + 1].sum(axis=0), by_grade[cut + 1 :].sum(axis=0))
        # As much as on the sum of more grades: no less than there is.
        noise = statistics.noise * max(cut + 1, len(classes) - cut - 1)
        found[name] = noised.noised_estimate(
            parts, noise, auroc_of_counts, lambda *held: area(Histogram(*held))
        )
    return found | {RANKED: unknown(round(max(float(matrix.sum()), 0.0)), _TOO_FINE)}
