"""From quantities to a network's input: pure functions, the same at every site."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.config.run_config import Images

#: Rec. 601 weights of red, green and blue.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
#: Largest values that the percentiles are taken over: a fixed stride keeps them quick.
_SAMPLE = 1 << 16
#: Pixels whose height and width differ by less than this part are square.
_SQUARE = 1e-3
#: Height over width of any pixel is between this and its inverse.
_LARGEST_ASPECT = 1e3
#: Distances in mm of any image's pixels and slices, from microscopes to the whole body.
_DISTANCES = (1e-6, 1e4)
#: An image has a background where so much of it lies in so small a part of its range, the darkest.
_BACKGROUND, _DARKEST = 0.1, 0.05
#: Voxels of one image beyond which resampling is refused.
_LARGEST = 1 << 28


Fault = Literal["too large", "not finite", "no geometry"]


class UnfitImage(ValueError):
    """No network's input can be made of an image; `fault` says of which kind the reason is."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def prepare(
    values: NDArray[np.float32],
    spacing: tuple[float, ...] | None,
    rules: Images,
    padding: NDArray[np.bool_] | None = None,
) -> Tensor:
    """Return a network's input, (channels, *size), from (rows, columns[, 3]) or (slices, ...).

    spacing is in mm along the axes of `values`, or None where it is unknown; in 2-D only the ratio
    of the two counts, by which the shape is kept. padding are the pixels that stand for nothing,
    (rows, columns) or (slices, ...); they hold the lowest value.

    UnfitImage where the spacing is none of any image, the grid is beyond any memory or a value on
    the way is beyond float32: whatever is returned is finite.
    """
    color = values.ndim == rules.dimensions + 1
    channels = _channels(values, rules.channels, color=color)
    outside = None if padding is None or not padding.any() else torch.from_numpy(padding)
    found = fit(intensity(channels, rules, outside), spacing, rules, nearest=False)
    _check_finite(found)
    return found


def prepare_labels(
    labels: NDArray[np.integer], spacing: tuple[float, ...] | None, rules: Images
) -> Tensor:
    """Return a label map on the same grid as `prepare`, (*size), uint8."""
    grid = torch.from_numpy(np.ascontiguousarray(labels))[None].float()
    return fit(grid, spacing, rules, nearest=True)[0].round().to(torch.uint8)


def _channels(values: NDArray[np.float32], channels: int, *, color: bool) -> Tensor:
    if color and channels == 3:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0)))
    grey = values @ _LUMINANCE if color else values
    return torch.from_numpy(np.ascontiguousarray(grey, np.float32))[None].repeat(
        channels, *[1] * grey.ndim
    )


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
            _check_finite(mean, deviation)
            return (image - mean) / deviation.clamp_min(1e-6)
        case "window":
            low, high = rules.window or (0.0, 1.0)
            scaled = ((image - low) / (high - low)).clamp(0, 1)
            return scaled if padding is None else scaled.masked_fill(padding, 0)


def _check_finite(*values: Tensor) -> None:
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


def fit(
    image: Tensor, spacing: tuple[float, ...] | None, rules: Images, *, nearest: bool
) -> Tensor:
    """Bring (channels, *any) to (channels, *size) by the configured way."""
    size = tuple(rules.size)
    image = resize(image, even_shape(tuple(image.shape[1:]), spacing, rules), nearest=nearest)
    match rules.fit:
        case "stretch":
            return resize(image, size, nearest=nearest)
        case "letterbox":
            inner = letterboxed(tuple(image.shape[1:]), spacing, rules)
            return pad_or_crop(resize(image, inner, nearest=nearest), size)
        case "crop":
            return pad_or_crop(image, size)


def even_shape(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, rules: Images
) -> tuple[int, ...]:
    """Return the shape to which an image is resampled before it is fitted, mostly its own.

    In 3-D that at the configured spacing; in 2-D, where pixels are cropped, that of square ones:
    the shorter side of a pixel is kept, so that nothing is lost.
    """
    if spacing is None:
        return shape
    if rules.dimensions == 2:
        if rules.fit != "crop":
            return shape
        _check_voxels(shape[0] * max(_tall(spacing), 1.0), shape[1] * max(_wide(spacing), 1.0))
        tall = aspect(spacing)
        found: tuple[float, ...] = (shape[0] * max(tall, 1.0), shape[1] * max(1 / tall, 1.0))
    elif rules.spacing is None:
        return shape
    else:
        least, most = _DISTANCES
        if not all(least <= here <= most for here in spacing):
            distances = " x ".join(f"{here:.3g}" for here in spacing)
            message = f"Expected distances from {least:g} to {most:g} mm, got {distances}."
            raise UnfitImage("no geometry", message)
        found = tuple(
            length * here / wanted
            for length, here, wanted in zip(shape, spacing, rules.spacing, strict=True)
        )
    _check_voxels(*found)
    return tuple(max(1, round(length)) for length in found)


def _check_voxels(*lengths: float) -> None:
    if not math.prod(max(1.0, length) for length in lengths) <= _LARGEST:  # nor inf or nan
        voxels = " x ".join(f"{length:.4g}" for length in lengths)
        message = f"Expected at most {_LARGEST} voxels at even spacing, got {voxels}."
        raise UnfitImage("too large", message)


def letterboxed(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, rules: Images
) -> tuple[int, ...]:
    """Return what of the network's grid an image fills; pixels that are not square keep theirs."""
    lengths: tuple[float, ...] = shape
    if rules.dimensions == 2 and spacing is not None:
        lengths = (shape[0] * aspect(spacing), shape[1])
    ratio = min(w / h for w, h in zip(rules.size, lengths, strict=True))
    return tuple(min(w, max(1, round(h * ratio))) for w, h in zip(rules.size, lengths, strict=True))


def aspect(spacing: tuple[float, ...]) -> float:
    """Return the height of a pixel over its width; 1 where they differ by rounding alone."""
    found = _tall(spacing)
    if not 1 / _LARGEST_ASPECT <= found <= _LARGEST_ASPECT:
        height, width = spacing
        message = (
            f"Expected pixels at most {_LARGEST_ASPECT:g} times as high as wide, or as wide as "
            f"high, got {height:.3g} high and {width:.3g} wide."
        )
        raise UnfitImage("no geometry", message)
    return found if abs(found - 1) > _SQUARE else 1.0


def _tall(spacing: tuple[float, ...]) -> float:
    """Return height over width, of any size; 1 where one of them says nothing."""
    height, width = spacing
    return height / width if height > 0 and width > 0 else 1.0


def _wide(spacing: tuple[float, ...]) -> float:
    return _tall(spacing[::-1])


def resize(image: Tensor, shape: tuple[int, ...], *, nearest: bool) -> Tensor:
    """Resample (channels, *any) to (channels, *shape); shrinking is smoothed first."""
    if tuple(image.shape[1:]) == shape:
        return image
    if nearest:
        return F.interpolate(image[None], shape, mode="nearest-exact")[0]
    if len(shape) == 2:
        return F.interpolate(image[None], shape, mode="bilinear", antialias=True)[0]
    # torch smooths in two dimensions only, so planes come first and then the slices.
    planes = F.interpolate(
        image.flatten(0, 1)[:, None], shape[1:], mode="bilinear", antialias=True
    ).reshape(*image.shape[:2], -1)
    return F.interpolate(
        planes[:, None], (shape[0], planes.shape[2]), mode="bilinear", antialias=True
    ).reshape(len(image), *shape)


def pad_or_crop(image: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Centre (channels, *any) in (channels, *shape), with zeros around it."""
    for axis, wanted in enumerate(shape, 1):
        excess = image.shape[axis] - wanted
        if excess > 0:
            image = image.narrow(axis, excess // 2, wanted)
    pads: list[int] = []
    for axis in range(len(shape), 0, -1):
        lack = shape[axis - 1] - image.shape[axis]
        pads += [lack // 2, lack - lack // 2]
    return F.pad(image, pads)
