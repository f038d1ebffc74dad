"""Metrics: exact where the scores are, mergeable where only counts may go.

Public: Statistics, merge, withhold_small_cells, with_count_noise, Estimate, and one
module a kind of prediction: labels (classes), survival, overlap (outlines).
"""

from common.metrics.estimate import Estimate, bootstrap_weights
from common.metrics.statistics import Statistics, merge, with_count_noise, withhold_small_cells

__all__ = [
    "Estimate",
    "Statistics",
    "bootstrap_weights",
    "merge",
    "with_count_noise",
    "withhold_small_cells",
]
