"""Configuration of a run, the same file for simulation and production.

Imported from here: changes, cohort, errors, extension, learning_rate, measured_rounds,
    network_sizes, patches, privacy, ranges, run_config, section, series, start_weights, task,
    training, yaml.
May import: common.platform.
"""
