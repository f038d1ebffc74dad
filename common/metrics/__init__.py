"""Metrics: exact where the scores are, mergeable where only counts may go.

Imported from here: constant_predictor, estimate, histogram, label_release, labels, life_table,
    names, noised, overlap, ranges, release, statistics, survival.
May import: nothing.
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
