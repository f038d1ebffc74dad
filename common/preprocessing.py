"""From quantities to a network's input: pure functions, the same at every site."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.config import Images

#: Rec. 601 weights of red, green and blue.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
#: Largest values that the percentiles are taken over: a fixed stride keeps them quick.
_SAMPLE = 1 << 16


def prepare(
    values: NDArray[np.float32], spacing: tuple[float, ...] | None, rules: Images
) -> Tensor:
    """Return a network's input, (channels, *size), from (rows, columns[, 3]) or (slices, ...).

    spacing is in mm along the axes of `values`, or None where it is unknown.
    """
    color = values.ndim == rules.dimensions + 1
    channels = _channels(values, rules.channels, color=color)
    channels = intensity(channels, rules)
    return fit(channels, spacing, rules, nearest=False)


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


def intensity(image: Tensor, rules: Images) -> Tensor:
    """Scale grey values; percentile and zscore look at this image alone, window is fixed."""
    match rules.intensity:
        case "percentile":
            flat = image.flatten()
            sample = flat[:: max(1, len(flat) // _SAMPLE)].numpy()
            low, high = (float(q) for q in np.percentile(sample, [1, 99]))
            return ((image - low) / max(high - low, 1e-6)).clamp(0, 1)
        case "zscore":
            return (image - image.mean()) / image.std().clamp_min(1e-6)
        case "window":
            low, high = rules.window or (0.0, 1.0)
            return ((image - low) / (high - low)).clamp(0, 1)


def fit(
    image: Tensor, spacing: tuple[float, ...] | None, rules: Images, *, nearest: bool
) -> Tensor:
    """Bring (channels, *any) to (channels, *size) by the configured way."""
    size = tuple(rules.size)
    if rules.spacing is not None and spacing is not None:
        shape = tuple(
            max(1, round(length * here / wanted))
            for length, here, wanted in zip(image.shape[1:], spacing, rules.spacing, strict=True)
        )
        image = resize(image, shape, nearest=nearest)
    match rules.fit:
        case "stretch":
            return resize(image, size, nearest=nearest)
        case "letterbox":
            ratio = min(w / h for w, h in zip(size, image.shape[1:], strict=True))
            inner = tuple(
                min(w, max(1, round(h * ratio))) for w, h in zip(size, image.shape[1:], strict=True)
            )
            return pad_or_crop(resize(image, inner, nearest=nearest), size)
        case "crop":
            return pad_or_crop(image, size)


def resize(image: Tensor, shape: tuple[int, ...], *, nearest: bool) -> Tensor:
    """Resample (channels, *any) to (channels, *shape); shrinking is smoothed first."""
    if tuple(image.shape[1:]) == shape:
        return image
    if nearest:
        return F.interpolate(image[None], shape, mode="nearest-exact")[0]
    if len(shape) == 2:
        return F.interpolate(image[None], shape, mode="bilinear", antialias=True)[0]
    return F.interpolate(image[None], shape, mode="trilinear")[0]


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


def augment(
    image: Tensor,
    target: Tensor,
    kind: Literal["diagnosis", "prognosis", "segmentation"],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Flip, shift and re-scale a batch; label maps move with their images.

    image is (items, channels, *spatial), target (items, *spatial) for segmentation.
    """
    if image.dim() < 4:
        return image, target
    spatial = list(range(2, image.dim()))
    moves_target = kind == "segmentation"
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(-1)
        target = target.flip(-1) if moves_target else target
    shifts = [
        int(torch.randint(-(n // 16), n // 16 + 1, (), generator=generator))
        for n in image.shape[2:]
    ]
    image = torch.roll(image, shifts, spatial)
    if moves_target:
        target = torch.roll(target, shifts, [axis - 1 for axis in spatial])
    shape = (len(image), *[1] * (image.dim() - 1))
    gain = 1 + 0.1 * torch.randn(shape, generator=generator)
    offset = 0.05 * torch.randn(shape, generator=generator)
    return image * gain + offset, target
