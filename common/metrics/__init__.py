"""Metrics: exact where the scores are, mergeable where only counts may go.

Imported from here: auroc, classification, constant_predictor, intervals, label_release, life_table,
    names, noised, noised_histogram, score_ranges, segmentation, small_cells, statistics, survival.
May import: nothing.
"""
