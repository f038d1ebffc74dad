"""Patients and weights as tensors, and the way from quantities to a network's input.

Imported from here: augmentation, cell_values, preprocessing, sample, scaffold, weights.
May import: common.config, common.platform.
"""
