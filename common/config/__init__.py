"""Configuration of a run, the same file for simulation and production.

Imported from here: changes, cohort, errors, learning_rate, measured_rounds, network_sizes, patches,
    privacy, run_config, series, start_weights, training, yaml.
May import: common.config.parts, common.config.tasks, common.platform.
"""
