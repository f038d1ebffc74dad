"""Patient-level differential privacy: plan, noise, accounting, statement.

Imported from here: accounting, measuring, noise, noise_calibration, plan, signal, statement.
May import: common.config, common.platform.
"""
