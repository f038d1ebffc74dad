"""Frozen bases from a file of public weights: an architecture, its SHA-256, and whose names it has.

The file is found, checked and read as first weights are (common/models/start_weights.py); nothing
of a base is trained, and no layer of it is drawn by chance. A base is shown what its authors showed
it, of prepared images between 0 and 1:

    torchvision, dinov2     ImageNet's mean and deviation taken off
    biomedclip              those of CLIP
    radimagenet             -1 to 1
    medicalnet              each volume's mean and deviation where it is not 0; 0 elsewhere
    all others              as it is

Grey images go to a base of colours as three equal ones. Features are brought to mean 0 over
themselves and to length 1, as those of our own backbone are.

Public: FrozenBase, base_width.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.run_config import Images, Model
from common.models.monai_networks import ImageNetwork, image_body, segmentation_parts
from common.models.normalisation import replace_batch_norm
from common.models.start_weights import begin, fold_norms
from common.models.vision_transformer import FORMS, VisionTransformer

#: Mean and standard deviation of ImageNet's channels, for pixels between 0 and 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SCALES = {
    "torchvision": IMAGENET,
    "dinov2": IMAGENET,
    "biomedclip": _CLIP,
    "radimagenet": ((0.5,) * 3, (0.5,) * 3),
}
_WIDTHS = {
    "resnet18": 512,
    "resnet50": 2048,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "vit": 192,
    **{name: form.width for name, form in FORMS.items()},
}
#: Features of SwinUNETR's last level, as a multiple of its first.
_SWIN = 16


def base_width(model: Model) -> int:
    """Return how many features an image becomes, without the file."""
    return _SWIN * model.width if model.backbone == "swin_unetr" else _WIDTHS[model.backbone]


class FrozenBase(nn.Module):
    """Prepared images to features, (items, features); the same bits whatever run it is in."""

    def __init__(self, model: Model, shape: tuple[int, ...]) -> None:
        """Read the file for images (channels, *size); ConfigurationError where it does not fit."""
        super().__init__()
        assert model.start is not None  # noqa: S101  # the configuration has it
        self.names: str = model.start.names
        self.channels = 3 if self.names in _SCALES else shape[0]
        # Overwritten by the file; drawn apart from everybody else's randomness all the same.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            images = Images.model_validate({"size": shape[1:], "channels": self.channels})
            self.body = _body(model, images)
        norms = fold_norms(self, model)
        if model.start.names == "wardround":
            self.body = replace_batch_norm(self.body)
        begin(self, model, norms, read=True)
        if isinstance(self.body, VisionTransformer):
            self.body.for_size(shape[1:])
        mean, deviation = _SCALES.get(self.names, ((0.0,) * self.channels, (1.0,) * self.channels))
        places = (-1, *[1] * len(shape[1:]))
        self.register_buffer("mean", torch.tensor(mean).reshape(places))
        self.register_buffer("deviation", torch.tensor(deviation).reshape(places))
        self.requires_grad_(requires_grad=False).eval()

    mean: Tensor  # (channels, 1, ...)
    deviation: Tensor  # (channels, 1, ...)

    def forward(self, image: Tensor) -> Tensor:
        """Return (items, features) of (items, channels, *size)."""
        if image.shape[1] < self.channels:
            image = image.expand(-1, self.channels, *[-1] * (image.dim() - 2))
        shown = (image - self.mean) / self.deviation
        features = self.body(_by_itself(shown) if self.names == "medicalnet" else shown)
        return F.layer_norm(features, features.shape[1:]) / math.sqrt(features.shape[1])


def _by_itself(volume: Tensor) -> Tensor:
    """Return each volume less the mean of what is not 0, by its deviation."""
    inside = (volume != 0).to(volume.dtype)
    places = tuple(range(1, volume.dim()))
    count = inside.sum(places, keepdim=True).clamp_min(1)
    apart = (volume - volume.sum(places, keepdim=True) / count) * inside
    variance = apart.square().sum(places, keepdim=True) / count
    return apart / variance.sqrt().clamp_min(1e-6)


def _body(model: Model, images: Images) -> nn.Module:
    if model.backbone in FORMS:
        return VisionTransformer(FORMS[model.backbone])
    if model.backbone == "swin_unetr":
        return _SwinEncoder(model, images)
    return image_body(cast("ImageNetwork", model.backbone), images)[0]


class _SwinEncoder(nn.Module):
    """SwinUNETR's encoder: the mean of its last level."""

    def __init__(self, model: Model, images: Images) -> None:
        super().__init__()
        whole, _ = segmentation_parts(
            model.model_copy(update={"network": "swin_unetr"}), images, outputs=1
        )
        self.swinViT = whole.get_submodule("swinViT")

    def forward(self, image: Tensor) -> Tensor:
        levels: list[Tensor] = self.swinViT(image)
        return levels[-1].flatten(2).mean(dim=2)
