"""Preprocessing: from an image's quantities to a network's input, the same at every site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config.run_config import Images
from common.data.intensity import check_finite, intensity
from common.data.resampling import fit

#: Rec. 601 weights of red, green and blue.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


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
    check_finite(found)
    return found


def prepare_phases(
    phases: Sequence[NDArray[np.float32]],
    spacing: tuple[float, ...] | None,
    rules: Images,
    padding: NDArray[np.bool_] | None = None,
) -> Tensor:
    """Return a network's input, (channels, *size), from pictures of the same places at other times.

    Each is (rows, columns) or (slices, ...). All are on one scale of grey, so that they can be
    compared; as a difference, each later one less the first, halved around 0.5 where grey is from
    0 to 1.
    """
    assert rules.time is not None  # noqa: S101  # whoever calls has phases
    together = torch.from_numpy(np.stack([np.ascontiguousarray(p, np.float32) for p in phases]))
    outside = None if padding is None or not padding.any() else torch.from_numpy(padding)
    found = fit(intensity(together, rules, outside), spacing, rules, nearest=False)
    check_finite(found)
    if rules.time.form != "difference":
        return found
    changed = found[1:] - found[:1]
    return changed if rules.intensity == "zscore" else changed / 2 + 0.5


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
