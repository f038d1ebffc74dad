"""Networks: `build_model` from a configuration, `extract_features` of images once and for all.

Public: build_model, norm_parameters, head_parameters, extract_features, feature_width,
FrozenFeatures.
"""

from common.models.build import build_model, head_parameters, norm_parameters
from common.models.frozen_features import FrozenFeatures, extract_features, feature_width

__all__ = [
    "FrozenFeatures",
    "build_model",
    "extract_features",
    "feature_width",
    "head_parameters",
    "norm_parameters",
]
