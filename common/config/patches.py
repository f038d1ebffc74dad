"""Training on patches of images that keep their own extent (`cohort.images.patch`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.config.parts.extension import is_extension
from common.config.training import SEGMENTATION_NETWORKS, Model, Training

if TYPE_CHECKING:
    from common.config.run_config import RunConfig

#: Where a run says nothing: nnU-Net's share of foreground; in private runs uniform patches, whose
#: mean gradient turns towards that of the whole volume (cosine .86 for one, .97 for four).
_PATCHES, _FOREGROUND = 2, 0.33
_PRIVATE_PATCHES = 4


@dataclass(frozen=True, kw_only=True)
class PatchRules:
    """How patches are drawn in training."""

    size: tuple[int, ...]  # voxels along each axis
    per_patient: int  # patches of one patient in one step
    foreground: float  # share that lies around a voxel of a structure


def patch_rules(config: RunConfig) -> PatchRules | None:
    """Return how a run as it is trained draws patches; None where it takes whole images."""
    images, training = config.cohort.images, config.training
    if images is None or images.patch is None:
        return None
    private = config.privacy != "none"
    share = 0.0 if private else _FOREGROUND
    return PatchRules(
        size=tuple(images.patch),
        per_patient=training.patches_per_patient or (_PRIVATE_PATCHES if private else _PATCHES),
        foreground=share if training.foreground is None else training.foreground,
    )


def check_patches(config: RunConfig) -> None:
    """Refuse patches where nothing slides over the whole, and their rules where there are none."""
    images = config.cohort.images
    if images is None or images.patch is None:
        for training in config.trainings:
            _check_idle(training)
        return
    if not config.task.outlines:
        message = (
            f"cohort.images.patch={list(images.patch)} goes with task: segmentation; "
            f"{config.task.kind} is of the whole image: give size in its place"
        )
        raise ValueError(message)
    if images.slide is not None:
        message = "cohort.images.slide cuts tiles of `size`, which patch has none of; remove patch"
        raise ValueError(message)
    for model in config.models:
        _check_network(model)
    training = config.trainings[-1]  # as the run trains between hospitals
    if config.privacy != "none" and training.foreground:
        message = (
            f"a private run draws patches anywhere, and not training.foreground="
            f"{training.foreground}: where structures lie is what it hides, and the mean over "
            "such patches is of another loss; give privacy.training a section of its own without"
        )
        raise ValueError(message)


def _check_idle(training: Training) -> None:
    for name in ("patches_per_patient", "foreground"):
        given = getattr(training, name)
        if given is not None:
            message = f"training.{name}={given} goes with cohort.images.patch, which is not given"
            raise ValueError(message)


def _check_network(model: Model) -> None:
    if model.network in SEGMENTATION_NETWORKS or is_extension(model.network):
        return
    message = (
        f"cohort.images.patch goes with a network that outlines, not with {model.network}; "
        f"choose {', '.join(sorted(SEGMENTATION_NETWORKS))}"
    )
    raise ValueError(message)
