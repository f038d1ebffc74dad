"""Networks: `build_model` from a configuration, `extract_features` of images once and for all.

Imported from here: bags, deep_supervision, efficientnet_lite, extension_network, frozen_features,
    fusion, local_layers, run_network, small_cnn, windows.
May import: common.config, common.config.parts, common.data, common.extensions, common.platform,
    common.tasks.
"""

from common.models.build import build_model, head_parameters, norm_parameters
from common.models.frozen_features import (
    FrozenFeatures,
    extract_features,
    feature_width,
    followed,
    image_shape,
)

__all__ = [
    "FrozenFeatures",
    "build_model",
    "extract_features",
    "feature_width",
    "followed",
    "head_parameters",
    "image_shape",
    "norm_parameters",
]
