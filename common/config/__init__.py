"""What a run is: typed once, checked once, the same file for simulation and production.

Imported from here: errors, extension, learning_rate, measurement, network_sizes, part, privacy,
    run_config, yaml.
May import: common.platform.
"""
