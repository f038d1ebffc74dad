"""Metrics: exact where the scores are, mergeable where only counts may go.

Imported from here: auroc_interval, classification, constant_predictor, dice, intervals,
    label_release, life_table, names, noised, noised_histogram, score_ranges, small_cells,
    statistics, surface_distance, survival.
May import: nothing.
"""
