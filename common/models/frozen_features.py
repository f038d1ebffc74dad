"""Fixed features of an image: computed once, cached, and never trained.

What is trained on them is a small head (`fusion.linear_head`), so that patient-level noise falls
on few parameters. The features depend on public weights and on nothing learned from patients: ours,
or those of an extension's backbone (common/models/extension_backbone.py), or of a file
(common/models/frozen_bases.py).
"""

from __future__ import annotations

import functools
import hashlib
import math

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from common.config.parts.extension import ExtensionUse, is_extension
from common.config.run_config import Extension, Images, Model
from common.extensions.loading import Pins
from common.models.efficientnet_lite import FEATURES, efficientnet_lite0
from common.models.extension_backbone import backbone_of
from common.models.frozen_bases import IMAGENET, FrozenBase, base_width

#: Names the projection: whoever computes these bytes has the same matrix, on every machine.
_PROJECTION = "wardround frozen features, projection 1"


def image_shape(images: Images | None) -> tuple[int, ...]:
    """Return (channels, *size) of a cohort's images; () without images."""
    return () if images is None else (images.input_channels, *images.size)


def feature_width(model: Model, shape: tuple[int, ...] = (), pins: Pins = ()) -> int:
    """Return how many features an image becomes; its shape counts for an extension's backbone.

    No file is read: a coordinator that makes the head alone may lack it.
    """
    if model.projection:
        return model.projection
    return base_width(model) if model.start else _backbone(model, shape, pins)[1]


class FrozenFeatures(nn.Module):
    """Preprocessed images in, features out; holds buffers only, so nothing of it is trained."""

    def __init__(self, model: Model, shape: tuple[int, ...] = (), pins: Pins = ()) -> None:
        """Take ours, or for images (channels, *size) that of an extension in `pins`."""
        super().__init__()
        self.backbone, found = _backbone(model, shape, pins)
        wanted = model.projection
        matrix = torch.zeros(0) if wanted is None else projection(wanted, found)
        self.register_buffer("projection", matrix)
        self.eval()

    projection: Tensor  # (features of the backbone, features), or (0,) without a projection

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, features) of (items, channels, *size), as the run prepares images."""
        features: Tensor = self.backbone(image)
        return features @ self.projection if self.projection.numel() else features


def _backbone(model: Model, shape: tuple[int, ...], pins: Pins) -> tuple[nn.Module, int]:
    """Return images to features, and how many these are."""
    if model.start is not None:
        return FrozenBase(model, shape), base_width(model)
    if not is_extension(model.backbone):
        return _efficientnet_lite0(), FEATURES
    use = ExtensionUse(name=model.backbone, arguments=model.arguments)
    found = backbone_of(use, shape, pins)
    return _Finite(found.record), found.features


class _EfficientNetLite0(nn.Module):
    """Ours: (items, 1 or 3, rows, columns) between 0 and 1 to (items, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = efficientnet_lite0()
        mean, deviation = IMAGENET
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])

    mean: Tensor  # (3, 1, 1)
    deviation: Tensor  # (3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        colour = image if image.shape[1] == 3 else image.expand(-1, 3, -1, -1)
        return pool(self.maps((colour - self.mean) / self.deviation))


@functools.cache
def _efficientnet_lite0() -> nn.Module:
    return _EfficientNetLite0().eval()


class _Finite(nn.Module):
    """A record of an extension's, whose features count as 0 where they are not finite.

    A number that is none would end the training, and tell that there was such a patient.
    """

    def __init__(self, record: nn.Module) -> None:
        super().__init__()
        self.record = record

    def forward(self, image: Tensor) -> Tensor:
        # Of its own: nothing of another patient lies in the same memory.
        found: Tensor = self.record(image.clone(memory_format=torch.contiguous_format))
        return torch.where(torch.isfinite(found), found, torch.zeros_like(found))


def pool(maps: Tensor) -> Tensor:
    """Return (items, 1280) of (items, 1280, rows, columns): the root of the mean, normalised.

    The root spreads the many small activations (the Hellinger map of Arandjelovic and Zisserman
    2012). Each item is then brought to mean 0 over its features and to length 1, whatever its
    contrast, so that no item's gradient is much larger than another's before clipping.
    """
    pooled = maps.mean(dim=(2, 3)).clamp_min(0).sqrt()
    return F.layer_norm(pooled, pooled.shape[1:]) / math.sqrt(pooled.shape[1])


def projection(features: int, inputs: int = FEATURES) -> Tensor:
    """Return a fixed public matrix of signs (Achlioptas 2003, theorem 1.1), (inputs, features)."""
    count = inputs * features
    stream = hashlib.shake_256(f"{_PROJECTION}: {features}".encode()).digest(math.ceil(count / 8))
    octets = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
    bits = (octets[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    signs = 2.0 * bits.flatten()[:count].to(torch.float32) - 1.0
    return signs.reshape(inputs, features) / math.sqrt(features)


@functools.lru_cache(maxsize=4)
def _network(model: Model, shape: tuple[int, ...], pins: tuple[Extension, ...]) -> FrozenFeatures:
    return FrozenFeatures(model, shape, pins)


def extract_features(images: Tensor, model: Model, pins: Pins = ()) -> Tensor:
    """Return (items, features) of (items, channels, *size), one image at a time.

    How many go through at once decides the last bits (up to 1.5e-6), so one patient more would
    change the features of others. On a processor one at a time is no slower.
    """
    ours = model.start is None and not is_extension(model.backbone)
    shape = () if ours else tuple(images.shape[1:])
    network = _network(model, shape, tuple(pins))
    with torch.no_grad():
        parts = [network(image) for image in torch.split(images, 1)] if len(images) else []
    return torch.cat(parts) if parts else torch.zeros(0, feature_width(model, shape, pins))


def followed(model: Model, shape: tuple[int, ...], pins: Pins) -> list[object]:
    """Return what features follow beside the images: the key that they are kept by.

    The hash of a file, or the record of an extension's backbone as it is here: content and
    arguments would not do, as a distribution may read its weights from elsewhere.
    """
    found: list[object] = [model.backbone, model.projection]
    if model.start is not None:
        return [*found, model.start.sha256, model.start.names, model.width]
    return [*found, record_hash(model, shape, pins)] if is_extension(model.backbone) else found


def record_hash(model: Model, shape: tuple[int, ...], pins: Pins) -> str:
    """Return a hash of the operations and constants that an extension's features are made by."""
    network, digest = _network(model, shape, tuple(pins)).backbone, hashlib.sha256()
    for module in network.modules():
        if isinstance(module, fx.GraphModule):
            digest.update(f"{module.graph}\n".encode())
    for name, held in network.state_dict().items():
        array = held.cpu().contiguous()
        digest.update(f"{name}: {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
