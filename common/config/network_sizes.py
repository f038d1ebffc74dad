"""Input sizes and widths that a network can take, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeGuard

from common.config.cohort import Images
from common.config.parts.extension import is_extension
from common.config.training import BackboneName, Model, NetworkName


@dataclass(frozen=True, kw_only=True)
class SizeRule:
    """What every side of the input must be."""

    smallest: int = 1  # pixels: less leaves nothing after the last reduction
    multiple: int = 1  # pixels: what is halved on the way down must be doubled on the way up

    def nearest(self, side: int) -> int:
        """Return the side nearest to this one that fits."""
        return max(self.smallest, self.multiple * max(1, round(side / self.multiple)))


def size_rule(network: NetworkName | BackboneName, dimensions: int) -> SizeRule:
    """Return the rule for a network's input in 2 or 3 dimensions."""
    match network:
        case "table":
            return SizeRule()
        case "small_cnn" | "resnet18" | "resnet50":
            return SizeRule(smallest=8)
        case "frozen_features" | "efficientnet_lite0" | "densenet121" | "efficientnet_b0":
            return SizeRule(smallest=32)
        case "dinov2_vits14" | "biomedclip_vitb16":
            patch = 14 if network == "dinov2_vits14" else 16
            return SizeRule(smallest=patch, multiple=patch)
        case "vit" | "unet" | "dynunet" | "segresnet" | "swin_unetr":
            step = _step(network, dimensions)
            return SizeRule(smallest=step, multiple=step)


def _step(
    network: Literal["vit", "unet", "dynunet", "segresnet", "swin_unetr"], dimensions: int
) -> int:
    match network:
        case "vit":
            return vit_patch(dimensions)
        case "unet" | "dynunet":
            return 1 << (levels(dimensions) - 1)  # every level halves
        case "segresnet":
            return 8
        case "swin_unetr":
            return 32  # patches of 2, halved four times


def vit_patch(dimensions: int) -> int:
    """Return the side of ViT's patches: volumes are smaller, so their patches are too."""
    return 16 if dimensions == 2 else 8


def levels(dimensions: int) -> int:
    """Return the levels of UNet and DynUNet, the full resolution included."""
    return 5 if dimensions == 2 else 4


def _is_ours(network: str) -> TypeGuard[NetworkName | BackboneName]:
    """Return whether the rules here know it; an extension says what it takes itself."""
    return not is_extension(network)


def rule_of(model: Model, dimensions: int) -> SizeRule | None:
    """Return the rule for what a model looks at images with; None where an extension says it."""
    looking = model.architecture
    return size_rule(looking, dimensions) if _is_ours(looking) else None


def misfit(model: Model, images: Images | None) -> str | None:
    """Return what keeps the network from taking this input, with what would fit, or None."""
    if model.architecture == "swin_unetr" and model.width % 12:
        near = 12 * max(1, round(model.width / 12))
        return f"model.width={model.width} must be a multiple of 12 for swin_unetr, e.g. {near}"
    looking, rule = model.architecture, rule_of(model, 2 if images is None else images.dimensions)
    if images is None or rule is None:
        return None
    near_size = [rule.nearest(side) for side in images.size]
    if near_size == list(images.size):
        return None
    what = "size" if images.patch is None else "patch"
    return (
        f"cohort.images.{what}={list(images.size)} does not fit {looking}: every side must be"
        f" a multiple of {rule.multiple} and at least {rule.smallest}. Nearest: {near_size}"
    )
