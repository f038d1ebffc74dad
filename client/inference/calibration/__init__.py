"""What a model's output means on a site's own patients.

Imported from here: calibration, labels, line, trained_on, unlike.
May import: common.
"""
