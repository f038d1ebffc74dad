"""Metrics: exact where the scores are, mergeable where only counts may go.

Public: Statistics, merge, withhold_small_cells, with_count_noise, count_sensitivity, Estimate,
and by kind of prediction: labels (classes), survival, overlap (outlines). What may
leave: release (which patients), ranges and label_release (scores), life_table (times),
histogram (counts that take noise).
"""

from common.metrics.estimate import Estimate, bootstrap_weights
from common.metrics.statistics import (
    Statistics,
    count_sensitivity,
    merge,
    with_count_noise,
    withhold_small_cells,
)

__all__ = [
    "Estimate",
    "Statistics",
    "bootstrap_weights",
    "count_sensitivity",
    "merge",
    "with_count_noise",
    "withhold_small_cells",
]
