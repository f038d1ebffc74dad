"""What a model's output means on a site's own patients.

Imported from here: label_questions, out_of_distribution, platt_scaling, prediction_sets,
    site_calibration, trained_on.
May import: common.
"""
