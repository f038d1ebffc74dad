"""Sections `model` and `training`, and what a run keeps, selects and exchanges."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from common.config.parts.extension import (
    ExtensionArguments,
    ExtensionName,
    NamedExtension,
    is_extension,
    ours_or_named,
)
from common.config.parts.section import NonNegativeFloat, Part, PositiveFloat, PositiveInt
from common.config.start_weights import IN_BLOCKS, NAMES, LastBlocks, StartWeights, TrainedPart

NetworkName = Literal[
    "small_cnn",
    "densenet121",
    "resnet18",
    "resnet50",
    "efficientnet_b0",
    "vit",
    "unet",
    "segresnet",
    "dynunet",
    "swin_unetr",
    "frozen_features",
    "table",
]
BackboneName = Literal[
    "efficientnet_lite0",
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "vit",
    "swin_unetr",
    "dinov2_vits14",
    "biomedclip_vitb16",
]
#: The backbone that comes with an installed package; the others come from a file.
_PACKAGED = "efficientnet_lite0"
SEGMENTATION_NETWORKS = frozenset({"unet", "segresnet", "dynunet", "swin_unetr"})


class Model(Part):
    """The network, by name; BatchNorm is replaced by GroupNorm wherever it stands."""

    #: One of ours, or DISTRIBUTION/NAME of an installed extension (docs/extensions.md).
    network: Annotated[NetworkName | ExtensionName, ours_or_named(get_args(NetworkName))]
    #: What an extension's network or backbone is built with, as the extension reads it.
    arguments: ExtensionArguments = Field(default={}, exclude_if=lambda given: not given)
    #: Width of the first level, for small_cnn and the segmentation networks.
    width: PositiveInt = 16
    #: Hidden layers between features (and the table) and the output; () is linear.
    hidden: tuple[PositiveInt, ...] = ()
    #: frozen_features: efficientnet_lite0, whose weights are installed; an architecture whose
    #: weights are the file of `start`; or DISTRIBUTION/NAME of an installed extension.
    backbone: Annotated[BackboneName | ExtensionName, ours_or_named(get_args(BackboneName))] = (
        _PACKAGED
    )
    #: frozen_features: a fixed public random projection to so many features, or none.
    projection: PositiveInt | None = None
    dropout: float = Field(strict=True, default=0.0, ge=0, lt=1)
    #: One answer of all of a patient's pictures together: the mean or maximum of their features,
    #: or gated attention (Ilse et al. 2018). Without it each picture is answered by itself.
    pool: Literal["mean", "max", "attention"] | None = Field(
        default=None, exclude_if=lambda given: given is None
    )

    #: Public weights to begin from; without it the first weights are drawn from the seed. With
    #: frozen_features: those of the backbone, which stay as they are.
    start: StartWeights | None = Field(default=None, exclude_if=lambda given: given is None)
    #: With `start`: all of the network, its head alone, or `{last_blocks: n}` and the head.
    train: TrainedPart = Field(default="all", exclude_if=lambda given: given == "all")

    #: dynunet: half and a quarter of the resolution are trained to outline, too, by heads of their
    #: own that the bundle does not hold.
    deep_supervision: bool = Field(
        strict=True, default=False, exclude_if=lambda given: given is False
    )

    @property
    def architecture(self) -> str:
        """Return what `start` has the weights of: the backbone where one is frozen."""
        return self.backbone if self.network == "frozen_features" else self.network

    #: Insides of blocks are computed again in the backward pass: less memory, more time.
    checkpoint: bool = Field(strict=True, default=False, exclude_if=lambda given: given is False)

    def __hash__(self) -> int:
        # A dict has none of its own, and what is computed for a model is kept by it.
        return hash(self.model_dump_json())

    @model_validator(mode="after")
    def _arguments_of_whom(self) -> Model:
        foreign = is_extension(self.network)
        other = self.backbone != _PACKAGED and self.network != "frozen_features"
        if other and not foreign:
            message = (
                f"backbone={self.backbone} goes with network: frozen_features; {self.network} "
                "takes the images themselves"
            )
            raise ValueError(message)
        if self.deep_supervision and self.network != "dynunet":
            message = (
                f"deep_supervision goes with network: dynunet, and not with {self.network}; remove "
                "it"
            )
            raise ValueError(message)
        if self.arguments and not foreign and not is_extension(self.backbone):
            message = (
                f"arguments={self.arguments} go with an extension's network or backbone; "
                f"{self.network} takes width, hidden and dropout"
            )
            raise ValueError(message)
        if self.checkpoint and self.network in {"table", "frozen_features"}:
            message = (
                f"checkpoint saves memory of a network of images, and {self.network} trains a head "
                "alone; remove it"
            )
            raise ValueError(message)
        ours = (
            "width", "hidden", "backbone", "projection", "dropout", "pool", "start", "train",
            "checkpoint",
        )  # fmt: skip
        given = [name for name in ours if name in self.model_fields_set and foreign]
        fields = type(self).model_fields
        given = [name for name in given if getattr(self, name) != fields[name].default]
        if given:
            message = (
                f"{self.network} is an extension's network and would not see model.{given[0]}; "
                f"write what it takes under model.arguments"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _start_fits(self) -> Model:
        frozen, base = self.network == "frozen_features", self.backbone
        from_file = frozen and base != _PACKAGED and not is_extension(base)
        if from_file and self.start is None:
            message = (
                f"backbone={base} is read from a file of public weights; name it in model.start: "
                "{sha256, names, source, licence}"
            )
            raise ValueError(message)
        if frozen and self.start is not None and not from_file:
            known = sorted(NAMES[self.start.names] & set(get_args(BackboneName)))
            message = (
                f"backbone={base} brings its own weights; remove model.start, or write which of "
                f"{', '.join(known)} the file is of as model.backbone"
            )
            raise ValueError(message)
        if frozen and self.train != "all":
            message = "train goes with a network that is trained; a frozen one never is: remove it"
            raise ValueError(message)
        if self.start is None:
            if self.train != "all":
                message = (
                    "train leaves a part of the network as it starts, which is drawn by chance "
                    "without model.start; give start, or remove train"
                )
                raise ValueError(message)
            return self
        if self.architecture not in NAMES[self.start.names]:
            fits = ", ".join(sorted(NAMES[self.start.names]))
            part = "backbone" if frozen else "network"
            message = (
                f"start.names={self.start.names} fits {fits}; model.{part}={self.architecture} "
                "does not begin from such a file"
            )
            raise ValueError(message)
        if isinstance(self.train, LastBlocks) and self.network not in IN_BLOCKS:
            message = (
                f"train.last_blocks={self.train.last_blocks} needs a body in blocks "
                f"({', '.join(sorted(IN_BLOCKS))}); for {self.network} take all or head"
            )
            raise ValueError(message)
        return self


class _Step(Part):
    #: With which each image is changed by the step.
    chance: float = Field(strict=True, default=0.5, gt=0, le=1)


class Flip(_Step):
    """Axes of the prepared image, each flipped by itself with the chance."""

    name: Literal["flip"]
    axes: tuple[Literal["slices", "rows", "columns"], ...] = Field(min_length=1)


class Rotate(_Step):
    """A turn in the plane of the slices by up to so many degrees either way."""

    name: Literal["rotate"]
    degrees: float = Field(strict=True, gt=0, le=180)


class Zoom(_Step):
    """Larger or smaller by up to such a part, alike along all axes."""

    name: Literal["zoom"]
    most: float = Field(strict=True, gt=0, le=0.5)


class Shift(_Step):
    """Moved along each axis by up to such a part of its side; the border repeats."""

    name: Literal["shift"]
    most: float = Field(strict=True, gt=0, le=0.5)


class Noise(_Step):
    """Gaussian noise on each value, with a standard deviation of up to so much."""

    name: Literal["noise"]
    most: float = Field(strict=True, gt=0, le=10)


class Blur(_Step):
    """A Gaussian blur with a width (sigma) of up to so many pixels."""

    name: Literal["blur"]
    most: float = Field(strict=True, gt=0, le=10)


class Contrast(_Step):
    """Values times up to 1 + or - so much, around the image's mean."""

    name: Literal["contrast"]
    most: float = Field(strict=True, gt=0, lt=1)


class Brightness(_Step):
    """Up to so much more or less on all values alike."""

    name: Literal["brightness"]
    most: float = Field(strict=True, gt=0, le=10)


class Gamma(_Step):
    """Values to a power between two, within the image's own lowest and highest."""

    name: Literal["gamma"]
    range: tuple[PositiveFloat, PositiveFloat]

    @model_validator(mode="after")
    def _rising(self) -> Gamma:
        low, high = self.range
        if low > high or high > 10:
            message = f"range={list(self.range)} must be [low, high] with low <= high <= 10"
            raise ValueError(message)
        return self


AugmentationStep = Annotated[
    Flip | Rotate | Zoom | Shift | Noise | Blur | Contrast | Brightness | Gamma,
    Field(discriminator="name"),
]


class Training(Part):
    """The rounds, and one site's steps in each of them."""

    rounds: PositiveInt
    local_steps: PositiveInt = 1
    #: Patients in a step; `all` takes every training patient.
    batch_patients: PositiveInt | Literal["all"] = 16
    #: Most images of one patient in one step.
    images_per_patient: PositiveInt = 4
    #: With cohort.images.patch: patches of one patient in one step; 2, in a private run 4.
    patches_per_patient: PositiveInt | None = Field(
        default=None, exclude_if=lambda given: given is None
    )
    #: With cohort.images.patch: share of patches around a voxel of a structure, which is drawn
    #: first; the others lie anywhere. 0.33; in a private run 0, and nothing else.
    foreground: float | None = Field(
        default=None, ge=0, le=1, strict=True, exclude_if=lambda given: given is None
    )
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    momentum: float = Field(strict=True, default=0.0, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0
    #: cosine falls to 5 % of the learning rate over all rounds.
    schedule: Literal["constant", "cosine"] = "constant"
    #: FedProx (Li et al. 2020, eq. 2): weight of |w - w_round|^2 / 2.
    proximal: NonNegativeFloat = 0.0
    #: Random changes of training images: true for flips of columns, shifts and grey values; or a
    #: list of named steps, each within its bounds, one after another.
    augment: bool | tuple[AugmentationStep, ...] = False
    #: Extensions' transforms of training images, one after another (docs/extensions.md).
    transforms: tuple[NamedExtension, ...] = Field(default=(), exclude_if=lambda given: not given)
    #: An extension's loss that is trained by; the task's own measures and chooses as ever.
    loss: NamedExtension | None = Field(default=None, exclude_if=lambda given: given is None)
    #: Public weights of labels in the loss that is trained by, never counted from a cohort: of a
    #: class; or of a label's presence, whose absence weighs 1. What is not named weighs 1.
    class_weights: dict[str, PositiveFloat] = Field(default={}, exclude_if=lambda given: not given)
    #: Labels: focal loss (Lin et al. 2017, eq. 4) with this gamma, such as 2.
    focal: PositiveFloat | None = Field(default=None, exclude_if=lambda given: given is None)
    #: Outlines: Tversky's index (Salehi et al. 2017, eq. 4) in place of Dice, with weights of
    #: voxels that are outlined wrongly and of those that are missed, such as [0.3, 0.7].
    tversky: tuple[PositiveFloat, PositiveFloat] | None = Field(
        default=None, exclude_if=lambda given: given is None
    )
    #: Of the steps: bf16 computes the network's forward pass in bfloat16 (autocast), its loss,
    #: gradients by patient, clipping and weights in float32; it is measured in float32. Without it
    #: float32; on a GPU bfloat16 where that is faster.
    precision: Literal["float32", "bf16"] | None = Field(
        default=None, exclude_if=lambda given: given is None
    )
    #: Exponential average of the global weights over rounds (0: off); post-processing.
    average: float = Field(strict=True, default=0.0, ge=0, lt=1)


class Personalisation(Part):
    """What each site keeps for itself."""

    #: local_norm: FedBN (Li et al. 2021). personal_head: FedRep/FedPer. ditto: a model of its own,
    #: pulled towards the shared one (Li et al. 2021, Ditto). At the end, fine_tune: more steps at
    #: each site; blend: a mix with the model that the site trains alone.
    method: Literal["none", "local_norm", "personal_head", "ditto", "fine_tune", "blend"] = (
        "fine_tune"
    )
    #: fine_tune: steps of training.optimizer, without augmentation and without FedProx's pull.
    steps: PositiveInt = 50
    #: fine_tune: a tenth of training.learning_rate where none is given.
    learning_rate: PositiveFloat | None = None
    #: ditto: weight of |v - w_round|^2 / 2 (their lambda); 0.1 where none is given.
    pull: PositiveFloat | None = Field(default=None, exclude_if=lambda given: given is None)

    @model_validator(mode="after")
    def _pulls(self) -> Personalisation:
        if self.pull is not None and self.method != "ditto":
            message = (
                f"pull={self.pull} goes with method: ditto; {self.method} would not see it: remove "
                "pull"
            )
            raise ValueError(message)
        return self


class Selection(Part):
    """Which round's weights are kept, by a rule fixed before the run."""

    #: best: the round with the smallest merged validation loss (or best metric). last: no choice.
    rule: Literal["best", "last"] = "best"
    by: Literal["loss", "metric"] = "loss"
    #: Rounds without improvement before the run stops; none runs them all.
    patience: PositiveInt | None = None
    #: Validate every so many rounds.
    every: PositiveInt = 1


class Exchange(Part):
    """How updates travel between hospitals; a simulation on one machine does not look at it."""

    #: lossless keeps every bit. float16 errs by at most 2^-11 of each value, int8 by at most
    #: 1/254 of the largest value among its 256 neighbours; noise was added before.
    encoding: Literal["lossless", "float16", "int8"] = "lossless"
    #: How long sites have for one round; what they send later is refused.
    round_minutes: PositiveFloat = 60.0
    #: How long a round may wait for the sites of `aggregation.smallest_quorum`.
    wait_hours: PositiveFloat = 72.0
