"""Metrics: exact where the scores are, mergeable where only counts may go.

Imported from here: agreement, auroc_interval, classification, conformal, constant_predictor, dice,
    intervals, label_release, names, noised, noised_error, noised_histogram, score_ranges,
    shown_probability, small_cells, statistics, surface_distance.
May import: nothing.
"""
