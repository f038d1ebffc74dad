"""Metrics of what is decided by probabilities: confusion matrices, thresholds, grades.

Imported from here: confusion, grades, threshold.
May import: common.metrics.
"""
