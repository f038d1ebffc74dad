"""Metrics of time to an event: exact where the times are, by life tables elsewhere.

Imported from here: competing, life_table, survival.
May import: common.metrics.
"""
