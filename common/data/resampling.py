"""Resampling of images to the network's grid: resized, padded or cropped."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from common.config.run_config import Images
from common.data.unfit_image import UnfitImage

#: Pixels whose height and width differ by less than this part are square.
_SQUARE = 1e-3
#: Height over width of any pixel is between this and its inverse.
_LARGEST_ASPECT = 1e3
#: Distances in mm of any image's pixels and slices, from microscopes to the whole body.
_DISTANCES = (1e-6, 1e4)
#: Parts of a voxel that count in a length.
_PARTS = 1e4
#: Voxels of one image beyond which resampling is refused.
_LARGEST = 1 << 28


def fit(
    image: Tensor, spacing: tuple[float, ...] | None, rules: Images, *, nearest: bool
) -> Tensor:
    """Bring (channels, *any) to (channels, *size) by the configured way.

    With `rules.patch` it keeps its own extent, with zeros around what is less than a patch.
    """
    size = tuple(rules.size)
    image = resize(image, even_shape(tuple(image.shape[1:]), spacing, rules), nearest=nearest)
    if rules.patch is not None:
        return pad_or_crop(image, tuple(map(max, image.shape[1:], rules.patch)))
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
    # An exact half may come with rounding of a header's single precision, and goes to one side.
    return tuple(max(1, round(round(length * _PARTS) / _PARTS)) for length in found)


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
