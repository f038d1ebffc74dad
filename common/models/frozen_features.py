"""Fixed features of an image: computed once, cached, and never trained.

What is trained on them is a small head (`fusion.linear_head`), so that patient-level noise falls
on few parameters. The features depend on public weights and on nothing learned from patients.
"""

from __future__ import annotations

import functools
import hashlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.config.run_config import Model
from common.models.efficientnet_lite import FEATURES, efficientnet_lite0

#: Mean and standard deviation of ImageNet's channels, for pixels between 0 and 1.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
#: Names the projection: whoever computes these bytes has the same matrix, on every machine.
_PROJECTION = "wardround frozen features, projection 1"


def feature_width(model: Model) -> int:
    """Return how many features an image becomes."""
    return model.projection or FEATURES


class FrozenFeatures(nn.Module):
    """Preprocessed images in, features out; holds buffers only, so nothing of it is trained."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.backbone = efficientnet_lite0()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None])
        matrix = torch.zeros(0) if model.projection is None else projection(model.projection)
        self.register_buffer("projection", matrix)
        self.eval()

    mean: Tensor  # (3, 1, 1)
    deviation: Tensor  # (3, 1, 1)
    projection: Tensor  # (1280, features), or (0,) without a projection

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, features) of (items, 1 or 3, rows, columns) between 0 and 1."""
        colour = image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)
        maps: Tensor = self.backbone((colour - self.mean) / self.deviation)
        features = pool(maps)
        return features @ self.projection if self.projection.numel() else features


def pool(maps: Tensor) -> Tensor:
    """Return (items, 1280) of (items, 1280, rows, columns): the root of the mean, normalised.

    The root spreads the many small activations (the Hellinger map of Arandjelovic and Zisserman
    2012). Each item is then brought to mean 0 over its features and to length 1, whatever its
    contrast, so that no item's gradient is much larger than another's before clipping.
    """
    pooled = maps.mean(dim=(2, 3)).clamp_min(0).sqrt()
    return F.layer_norm(pooled, pooled.shape[1:]) / math.sqrt(pooled.shape[1])


def projection(features: int) -> Tensor:
    """Return a fixed public matrix of signs (Achlioptas 2003, theorem 1.1), (1280, features)."""
    count = FEATURES * features
    stream = hashlib.shake_256(f"{_PROJECTION}: {features}".encode()).digest(math.ceil(count / 8))
    octets = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
    bits = (octets[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    signs = 2.0 * bits.flatten()[:count].to(torch.float32) - 1.0
    return signs.reshape(FEATURES, features) / math.sqrt(features)


@functools.lru_cache(maxsize=4)
def _network(model: Model) -> FrozenFeatures:
    return FrozenFeatures(model)


def extract_features(images: Tensor, model: Model) -> Tensor:
    """Return (items, features) of (items, channel, rows, columns), one image at a time.

    How many go through at once decides the last bits (up to 1.5e-6), so one patient more would
    change the features of others. On a processor one at a time is no slower.
    """
    network = _network(model)
    with torch.no_grad():
        parts = [network(image) for image in torch.split(images, 1)] if len(images) else []
    return torch.cat(parts) if parts else torch.zeros(0, feature_width(model))
