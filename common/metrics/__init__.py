"""Metrics: exact where the scores are, mergeable where only counts may go.

Imported from here: agreement, auroc_interval, classification, conformal, confusion,
    constant_predictor, dice, grades, intervals, label_release, life_table, names, noised,
    noised_error, noised_histogram, score_ranges, small_cells, statistics, surface_distance,
    survival.
May import: nothing.
"""
