"""What a site may send of one label's probabilities and outcomes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.metrics.classification import RELIABILITY_BINS, reliability_bin
from common.metrics.intervals import Float, Owners, tally
from common.metrics.score_ranges import BINS, ranges_of
from common.metrics.small_cells import counted, patients_in


class LabelRows(NamedTuple):
    """One label of a site's patients (or images); never leaves the site."""

    score: Float  # (n,) probability
    truth: Float  # (n,) 0, 1, or nan where it is not known
    owner: Owners  # (n,) which patient
    #: (n,) rows of one number are told together (decisions/confusion.py); None: all may be.
    group: NDArray[np.int64] | None = None


class LabelRelease(NamedTuple):
    """Counts and sums of one label; all add up."""

    positive: Float  # (2, BINS) patients with the outcome by first and last bin of their range
    negative: Float  # (2, BINS) without it
    spread: Float  # (2, BINS) without and with it, spread over their ranges
    reliability: Float  # (2, RELIABILITY_BINS) without and with it, by the mean of their range
    predicted: Float  # (RELIABILITY_BINS,) sum of these patients' probabilities
    brier: Float  # (3,) count, sum and sum of squares of squared errors


def known_rows(rows: LabelRows, smallest: int) -> LabelRows:
    """Return the rows that may be added up, none of them with an unknown outcome."""
    known = counted(~np.isnan(rows.truth), rows.owner, rows.score, smallest)
    group = None if rows.group is None else rows.group[known]
    return LabelRows(rows.score[known], rows.truth[known], rows.owner[known], group)


def release_label(rows: LabelRows, smallest: int, *, by_class: bool) -> LabelRelease:
    """Return what can be told of known rows; by_class False holds back all counts of outcomes.

    The calibration table is made of the same ranges as the curves, each in the bin of its mean
    probability: two partitions of the same patients could be subtracted.
    """
    error = (rows.score - rows.truth) ** 2
    moments = np.array([float(len(error)), error.sum(), (error**2).sum()])
    classes = [_one_class(rows, outcome, smallest if by_class else 0) for outcome in (0.0, 1.0)]
    (without, _, _, _), (with_it, _, _, _) = classes
    return LabelRelease(
        positive=with_it,
        negative=without,
        spread=np.stack([c[1] for c in classes]),
        reliability=np.stack([c[2] for c in classes]),
        predicted=np.asarray(classes[0][3] + classes[1][3]),
        brier=moments,
    )


def _one_class(rows: LabelRows, outcome: float, smallest: int) -> tuple[Float, Float, Float, Float]:
    """Return ends, spread, calibration counts and summed probabilities; smallest 0: zeros."""
    here = rows.truth == outcome
    ends, spread = np.zeros((2, BINS)), np.zeros(BINS)
    table, predicted = np.zeros(RELIABILITY_BINS), np.zeros(RELIABILITY_BINS)
    if smallest == 0 or patients_in(rows.owner, here) < smallest:
        return ends, spread, table, predicted
    group = np.zeros(len(here), np.int64) if rows.group is None else rows.group
    for one in np.unique(group[here]):
        part = here & (group == one)
        score = rows.score[part]
        held, number = ranges_of(score, rows.owner[part], smallest)
        count, total = tally(number, 1), tally(number, 1, score)
        place = reliability_bin(total / count)
        ends += np.stack([held.first, held.last])
        spread += held.spread
        table += tally(place, RELIABILITY_BINS, count)
        predicted += tally(place, RELIABILITY_BINS, total)
    return ends, spread, table, predicted
