"""Calibration of a model at a site, on the site's own patients.

Imported from here: label_questions, out_of_distribution, platt_scaling, prediction_sets,
    site_calibration, trained_on.
May import: common.
"""
