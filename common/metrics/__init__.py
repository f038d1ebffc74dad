"""Metrics: exact where the scores are, mergeable where only counts may go.

Imported from here: constant_predictor, estimate, histogram, label_release, labels, life_table,
    names, noised, overlap, ranges, release, statistics, survival.
May import: nothing.
"""
