"""Augmentation by named, bounded steps: MONAI's random transforms, each image with its own seed.

    geometric steps   move the label map with its image (nearest label, border repeated)
    grey values       change the image alone; a channel of zeros, which is absent, stays so

What an image becomes follows its values and the draw for it, and nothing of other images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common.config.run_config import RunConfig
from common.config.training import (
    AugmentationStep,
    Blur,
    Brightness,
    Contrast,
    Flip,
    Gamma,
    Noise,
    Rotate,
    Shift,
    Zoom,
)

_AXES = {"columns": -1, "rows": -2, "slices": -3}
_SEEDS = 2**31 - 1  # numpy's RandomState takes 32 bits

#: {"image": (channels, *spatial), and perhaps "label"} -> the same.
_Item = dict[str, Tensor]


class NamedSteps:
    """Steps of a configuration, ready to be applied to batches of one size of images."""

    def __init__(self, steps: Sequence[AugmentationStep], spatial: Sequence[int]) -> None:
        # Imported here: MONAI takes a while to load, and most runs name no steps.
        from monai.transforms.compose import Compose

        made = [_made(step, tuple(spatial)) for step in steps]
        self._all = Compose([one for keys in made for one in keys])

    def __call__(
        self, image: Tensor, target: Tensor, generator: torch.Generator, *, outlines: bool
    ) -> tuple[Tensor, Tensor]:
        """Return a batch (items, channels, *spatial) and its targets, each item changed by itself.

        target (items, *spatial) moves along where it is of outlines.
        """
        images, targets = torch.empty_like(image), torch.empty_like(target)
        for place in range(len(image)):
            seed = int(torch.randint(_SEEDS, (), generator=generator))
            item: _Item = {"image": image[place]}
            if outlines:
                item["label"] = target[place][None].float()
            self._all.set_random_state(seed=seed)
            found: Mapping[str, Tensor] = self._all(item)
            absent = (image[place].flatten(1) == 0).all(dim=1)
            images[place] = _plain(found["image"])
            images[place][absent] = 0.0
            if outlines:
                targets[place] = _plain(found["label"])[0].round().to(target.dtype)
        return images, targets if outlines else target


def named_steps(config: RunConfig) -> NamedSteps | None:
    """Return the steps that a run names for images it trains on, or None where it names none."""
    steps, images = config.training.augment, config.cohort.images
    if images is None or isinstance(steps, bool) or not steps:
        return None
    return NamedSteps(steps, images.patch or images.size)


def _plain(value: Tensor) -> Tensor:
    return value.as_tensor() if hasattr(value, "as_tensor") else value


#: One of MONAI's dictionary transforms.
_Transform = Callable[[Any], Any]


def _made(step: AugmentationStep, spatial: tuple[int, ...]) -> list[_Transform]:
    """Return MONAI's transforms of a step: of image and label, or of the image alone."""
    match step:
        case Flip() | Rotate() | Zoom() | Shift():
            return _moving(step, spatial)
        case _:
            return [_changing(step)]


def _moving(step: Flip | Rotate | Zoom | Shift, spatial: tuple[int, ...]) -> list[_Transform]:
    from monai.transforms.spatial.dictionary import RandAffined, RandFlipd, RandZoomd

    linear = "bilinear" if len(spatial) == 2 else "trilinear"
    both: dict[str, Any] = {
        "keys": ("image", "label"),
        "allow_missing_keys": True,
        "prob": step.chance,
    }
    affine: dict[str, Any] = both | {"mode": ("bilinear", "nearest"), "padding_mode": "border"}
    match step:
        case Flip():
            axes = [len(spatial) + _AXES[name] for name in dict.fromkeys(step.axes)]
            return [RandFlipd(**both, spatial_axis=axis) for axis in axes]
        case Rotate():
            # In a volume around the axis of the slices, which is the first.
            angle = math.radians(step.degrees)
            turns = [angle] if len(spatial) == 2 else [angle, 0.0, 0.0]
            return [RandAffined(**affine, rotate_range=turns)]
        case Zoom():
            # One number for all axes: MONAI's affine would draw one each.
            ends: dict[str, Any] = {"min_zoom": 1 - step.most, "max_zoom": 1 + step.most}
            return [RandZoomd(**both, **ends, mode=(linear, "nearest"), padding_mode="edge")]
        case Shift():
            return [RandAffined(**affine, translate_range=[step.most * side for side in spatial])]


def _changing(step: Noise | Blur | Contrast | Brightness | Gamma) -> _Transform:
    from monai.transforms.intensity import dictionary as grey

    image: dict[str, Any] = {"keys": ("image",), "prob": step.chance}
    match step:
        case Noise():
            return grey.RandGaussianNoised(**image, std=step.most)
        case Blur():
            widths: dict[str, Any] = {f"sigma_{axis}": (0.0, step.most) for axis in "xyz"}
            return grey.RandGaussianSmoothd(**image, **widths)
        case Contrast():
            return grey.RandScaleIntensityFixedMeand(**image, factors=step.most)
        case Brightness():
            return grey.RandShiftIntensityd(**image, offsets=step.most)
        case Gamma():
            return grey.RandAdjustContrastd(**image, gamma=step.range)
