"""Patients and weights as tensors, and the way from quantities to a network's input.

Imported from here: augmentation, cell_values, preprocessing, resampling, sample, unfit_image,
    weights.
May import: common.config, common.platform.
"""
