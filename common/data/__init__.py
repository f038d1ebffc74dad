"""Patients and weights as tensors, and the preprocessing of images.

Imported from here: augmentation, cell_values, kept_items, named_augmentation, preprocessing,
    resampling, sample, unfit_image, volumes, weight_files, weights.
May import: common.config, common.platform.
"""
