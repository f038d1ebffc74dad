"""Section `model.start`: public weights that training begins from, named by their file's hash."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from common.config.parts.section import Part, PositiveInt

#: Whose names a file's tensors have, and which of our networks they fit.
NAMES = {
    "torchvision": frozenset({"resnet18", "resnet50", "densenet121"}),
    "radimagenet": frozenset({"resnet50", "densenet121"}),
    "medicalnet": frozenset({"resnet50"}),
    "swin_unetr_ssl": frozenset({"swin_unetr"}),
    "monai": frozenset({
        "resnet18", "resnet50", "densenet121", "efficientnet_b0", "vit",
        "segresnet", "unet", "dynunet", "swin_unetr",
    }),
    "wardround": frozenset({
        "resnet18", "resnet50", "densenet121", "efficientnet_b0", "vit", "small_cnn",
        "segresnet", "unet", "dynunet", "swin_unetr",
    }),
    "dinov2": frozenset({"dinov2_vits14"}),
    "biomedclip": frozenset({"biomedclip_vitb16"}),
}  # fmt: skip
#: Frozen bases of these names take images of so many dimensions alone.
DIMENSIONS = {
    "torchvision": 2, "radimagenet": 2, "dinov2": 2, "biomedclip": 2, "medicalnet": 3,
}  # fmt: skip
#: Files of these names have one channel in; the other public ones three, for which grey counts as
#: the same in each colour.
ONE_CHANNEL = frozenset({"medicalnet", "swin_unetr_ssl"})
#: Networks whose body is a row of blocks, so that the last of them can be trained alone.
IN_BLOCKS = frozenset({"resnet18", "resnet50", "densenet121", "efficientnet_b0", "vit"})

_Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class StartWeights(Part):
    """A file of public weights that whoever runs the network has, named by its content.

    No weights that were learned from patients of a privacy ledger: what they tell of these
    patients is counted nowhere.
    """

    #: SHA-256 of the file, in hex.
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    #: Whose names its tensors have. `wardround`: those of a bundle's model.safetensors.
    names: Literal[
        "torchvision",
        "radimagenet",
        "medicalnet",
        "swin_unetr_ssl",
        "monai",
        "dinov2",
        "biomedclip",
        "wardround",
    ]
    #: Where the file comes from, and under which licence: sites read it before they approve.
    source: _Said
    licence: _Said


class LastBlocks(Part):
    """So many blocks at the end of the body are trained, beside the head."""

    last_blocks: PositiveInt


#: Which part of a network that starts from a file is trained; the rest stays as the file has it.
TrainedPart = Literal["all", "head"] | LastBlocks
