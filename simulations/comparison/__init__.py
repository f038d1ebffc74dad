"""Comparison of ways to train on the same patients, split the same way.

Imported from here: algorithms, arm_configurations, arms, cohorts, compare, measured_hospitals,
    model_measured, not_used, site_matrix, sweep, unfinished, verdicts, virtual_sites.
May import: simulations.engines, simulations.synthetic, client, common, server.
"""
