"""Intensity of images for a network: a fixed window (of HU), percentiles or z-scores."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from common.config.run_config import Images
from common.data.unfit_image import UnfitImage

#: Largest values that the percentiles are taken over: a fixed stride keeps them quick.
_SAMPLE = 1 << 16
#: An image has a background where so much of it lies in so small a part of its range, the darkest.
_BACKGROUND, _DARKEST = 0.1, 0.05


def intensity(image: Tensor, rules: Images, padding: Tensor | None = None) -> Tensor:
    """Scale grey values; percentile and zscore look at this image alone, window is fixed.

    image is (channels, *any), padding (*any) where there is any.
    """
    counted = image if padding is None else _counted(image, padding)
    match rules.intensity:
        case "percentile":
            flat = counted.flatten()
            sample = flat[:: max(1, len(flat) // _SAMPLE)].numpy()
            low, high = (float(q) for q in np.percentile(sample, [1, 99]))
            return ((image - low) / max(high - low, 1e-6)).clamp(0, 1)
        case "zscore":
            mean, deviation = counted.mean(), counted.std()
            # An infinite deviation would make any image zeros.
            check_finite(mean, deviation)
            return (image - mean) / deviation.clamp_min(1e-6)
        case "window":
            low, high = rules.window or (0.0, 1.0)
            scaled = ((image - low) / (high - low)).clamp(0, 1)
            return scaled if padding is None else scaled.masked_fill(padding, 0)


def check_finite(*values: Tensor) -> None:
    """Raise UnfitImage for a value that float32 cannot hold."""
    if not all(bool(value.isfinite().all()) for value in values):
        message = "Expected values that are finite in float32, with their mean and deviation."
        raise UnfitImage("not finite", message)


def _counted(image: Tensor, padding: Tensor) -> Tensor:
    """Return the values that statistics are over: those that are no padding.

    Where the image has a background of its own at its darkest (air), padding is more of it: a
    scanner that writes air there gives the same input.
    """
    real = image[:, ~padding]
    if not real.numel():
        return image
    low, high = real.min(), real.max()
    share = (real <= low + _DARKEST * (high - low)).float().mean()
    return image if share >= _BACKGROUND else real
