"""Distance of an image from the training patients, by features that no patient was needed for.

The features are those of the frozen EfficientNet-Lite0 of `common.models`, whatever network
answers: a network's own last features need not move for what it never saw. A volume is looked
at in planes. The distance is the mean to the nearest few of the site's training images
(Sun et al. 2022, deep nearest neighbours); its scale means nothing, its rank among calibration
patients does. Not noticed: what looks like the training images and is ill in a new way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.config.run_config import Model, RunConfig
from common.data.kept_items import Items, in_memory, pieces
from common.metrics.intervals import Float
from common.models.efficientnet_lite import FEATURES
from common.models.frozen_features import FrozenFeatures

_OURS = Model(network="frozen_features")
#: Nearest training images whose mean distance counts.
_NEAREST = 5
#: Rows and columns below which an image is enlarged: the backbone shrinks 32 times.
_SMALLEST = 96
#: Planes of a volume that are looked at, as parts of its slices.
_PLANES = (0.3, 0.4, 0.5, 0.6, 0.7)


def embedded(image: Items, table: Tensor, config: RunConfig) -> Tensor:
    """Return (items, features) of (items, channels, *size), or of the table without images.

    Of images in files one is read at a time; volumes have extents of their own.
    """
    if config.cohort.images is None:
        return table.float()
    if config.keeps_features:  # the tiles themselves are nowhere
        return in_memory(image).float()
    backbone = FrozenFeatures(_OURS)
    with torch.inference_mode():
        parts = [backbone(_planes(item)).mean(dim=0) for some in pieces(image) for item in some]
    return torch.stack(parts) if parts else torch.zeros(0, FEATURES)


def _planes(item: Tensor) -> Tensor:
    """Return (planes, 1 or 3, rows, columns) between 0 and 1 of (channels, *size)."""
    if item.dim() == 4:
        chosen = [min(int(part * item.shape[1]), item.shape[1] - 1) for part in _PLANES]
        planes = item[:, chosen].transpose(0, 1)
    else:
        planes = item[None]
    low, high = planes.amin(), planes.amax()
    planes = (planes - low) / (high - low).clamp_min(1e-6)  # z-scores are not between 0 and 1
    side = min(planes.shape[-2:])
    if side < _SMALLEST:
        shape = [round(n * _SMALLEST / side) for n in planes.shape[-2:]]
        planes = F.interpolate(planes, shape, mode="bilinear", antialias=True)
    return planes


def distances(reference: Tensor, found: Tensor) -> Tensor:
    """Return (items,): the mean distance of each to its nearest in the reference."""
    nearest = min(_NEAREST, len(reference))
    apart = torch.cdist(found.double(), reference.double())
    return apart.topk(nearest, dim=1, largest=False).values.mean(dim=1)


def share_as_unlike(calibration: Float, distance: float) -> float:
    """Return the share of calibration patients at least as unlike the training as this.

    `calibration` holds their distances, (patients,). Counting the new one itself, it is a
    p-value: among usual studies it is below t with chance t at most.
    """
    beyond = int((calibration >= distance).sum())
    return (1 + beyond) / (1 + len(calibration))
