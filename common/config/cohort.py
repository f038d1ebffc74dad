"""Section `cohort`: what a site must have, and how it becomes a network's input."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import ConfigDict, Field, Strict, model_validator

from common.config.parts.section import Part, PositiveFloat, PositiveInt, Real
from common.config.series import SeriesRule, check_rules

#: Without it, what a network loses where a channel is missing is several times as much.
USUAL_DROP = 0.3

#: Of an image that is kept in 32 bits a value: 256 x 256.
_MOST_VALUES_OF_32_BITS = 1 << 16


class Slide(Part):
    """How whole slides become tiles of one magnification, each an image of its patient."""

    #: Microns a pixel: the coarsest level with pixels of at most this size is taken, and resized.
    mpp: PositiveFloat = 0.5
    #: Pixels on a tile's side, at `mpp`; `images.size` is what the network sees of it.
    tile: int = Field(strict=True, default=256, ge=32, le=4096)
    #: More tiles of a slide are drawn, by the patient's own seed.
    most_tiles: PositiveInt = 2000
    #: The least part of a tile that is tissue.
    tissue: float = Field(strict=True, default=0.25, gt=0, le=1)
    #: macenko_fixed brings each slide's stains to public colours, by that slide alone.
    stain: Literal["none", "macenko_fixed"] = "none"


def _size_or_patch(schema: dict[str, Any]) -> None:
    """Let a JSON schema take `patch` in place of `size`."""
    schema["required"] = [name for name in schema["required"] if name != "size"]
    schema["anyOf"] = [{"required": ["size"]}, {"required": ["patch"]}]


class Time(Part):
    """Pictures of one place at several times, echoes or weightings: which are used, and how.

    Every place of a series must have the same number of them. Each place orders its own, by rank.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    #: What orders them. auto takes the first that every place has and tells its pictures apart by:
    #: temporal_position, trigger_time, acquisition (AcquisitionNumber), echo (EchoTime), b_value
    #: (DiffusionBValue), the time of acquisition, instance (InstanceNumber). What varies in two
    #: ways, such as phases of two echoes, is left out.
    by: Literal[
        "auto", "temporal_position", "trigger_time", "acquisition", "echo", "b_value", "instance"
    ] = "auto"
    #: How many are taken, evenly by rank from the first on; without it all (`as: items` alone).
    frames: Annotated[int, Strict(), Ge(2), Le(64)] | None = None
    #: channels: side by side, on one scale of grey. difference: each later one less the first.
    #: items: each a picture of its own.
    form: Literal["channels", "items", "difference"] = Field(default="channels", alias="as")
    #: slices: series of one study that differ in the number at the end of their description are
    #: one stack, as where each slice was a series.
    join: Literal["none", "slices"] = Field(default="none", exclude_if=lambda g: g == "none")

    @model_validator(mode="after")
    def _fits_together(self) -> Time:
        if self.form != "items" and self.frames is None:
            message = f"as: {self.form} needs frames, such as 2, which fixes the channels"
            raise ValueError(message)
        return self

    @property
    def channels(self) -> int:
        """Channels that the phases of one picture are."""
        match self.form:
            case "channels":
                return self.frames or 1
            case "difference":
                return (self.frames or 2) - 1
            case "items":
                return 1


class Images(Part):
    """How a study's pixels become a network's input.

    What is left out of the canonical JSON where nobody gave it came after runs had been
    approved by their hash, which stays the same.
    """

    model_config = ConfigDict(serialize_by_alias=True, json_schema_extra=_size_or_patch)

    #: Rows x columns (2-D) or slices x rows x columns (3-D) of the network's input.
    size: tuple[PositiveInt, PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt]
    channels: Literal[1, 3] = 1
    #: letterbox keeps the shape and pads; stretch fills; crop cuts or pads, in 3-D at `spacing`.
    #: Pixels of 2-D images keep their shape in both; voxels are taken as cubes without `spacing`.
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    #: Slice, row and column distance in mm to resample to first (3-D).
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    #: percentile and zscore look at one image at a time; window is fixed in rescaled units.
    intensity: Literal["percentile", "zscore", "window"] = "percentile"
    window: tuple[Real, Real] | None = None
    #: Modalities that are used (DICOM 0008,0060); empty takes every one.
    modalities: tuple[str, ...] = ()
    #: Parts of the body that are used (DICOM 0018,0015); empty takes every one. An image that
    #: does not say which it shows is taken.
    body_parts: tuple[str, ...] = Field(default=(), exclude_if=lambda given: not given)
    #: The one side that is used (DICOM 0020,0062), L or R; images that do not say are taken.
    laterality: Literal["L", "R"] | None = Field(default=None, exclude_if=lambda g: g is None)
    #: Column of labels.csv with an image's side, which must be that of its header.
    laterality_column: str | None = Field(default=None, exclude_if=lambda given: given is None)

    #: Of X-rays that say it (DICOM 0008,0068 and SOP Class): those as people are shown them, which
    #: is meant where nothing is given, or the raw ones. Images that do not say are taken.
    presentation: Literal["for_presentation", "for_processing"] | None = Field(
        default=None, exclude_if=lambda given: given is None
    )
    #: Units (DICOM 0054,1001) of PET images; BQML is meant where nothing is given. SUVBW is
    #: GML by body weight, or computed of BQML where the header says enough.
    units: Literal["BQML", "GML", "CNTS", "CPS", "PROPCNTS", "PROPCPS", "SUVBW"] | None = Field(
        default=None, exclude_if=lambda given: given is None
    )

    #: Bits that a prepared value is kept with on a site's disk. Where nothing is given: 32 for
    #: images of up to 65,536 values (256 x 256), else and with `patch` 16, which move a value by
    #: at most 1/131070 of its image's range.
    bits: Literal[16, 32] | None = Field(default=None, exclude_if=lambda given: given is None)
    #: 2-D slices are seen between the ones before and after them, as three channels; at the ends
    #: of a series the slice itself is repeated.
    neighbours: Literal[1] | None = Field(default=None, exclude_if=lambda given: given is None)
    #: Whole slides (VL Whole Slide Microscopy) are cut into tiles; nothing else is taken then.
    slide: Slide | None = Field(default=None, exclude_if=lambda given: given is None)

    #: Which series of a study are used, where it holds several. One rule chooses one series;
    #: several are channels, each brought to the grid of the one with `reference: true`.
    series: tuple[SeriesRule, ...] = Field(
        default=(), max_length=16, exclude_if=lambda given: not given
    )
    #: Chance with which each channel but the reference is zeros in a training step; by default
    #: 0.3 where a rule has `missing: zero`, else 0.
    drop_channels: float | None = Field(
        default=None, strict=True, ge=0, lt=1, exclude_if=lambda given: given is None
    )
    #: Channels of another frame of reference: frame leaves the study out, trust takes the
    #: positions as if the frame were one.
    registration: Literal["frame", "trust"] = Field(
        default="frame", alias="register", exclude_if=lambda given: given == "frame"
    )

    #: Cine, contrast phases, echoes: several pictures of every place. Without it they are refused.
    time: Time | None = Field(default=None, exclude_if=lambda given: given is None)

    #: In place of `size`: images keep their own extent (volumes at `spacing`), a network is trained
    #: on patches of this size and slides over the whole when it is asked.
    patch: tuple[PositiveInt, PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt] | None = (
        Field(default=None, exclude_if=lambda given: given is None)
    )

    #: files: the table names each image's file below the site's folder, in its column `image`, or
    #: `image_NAME` for each of several series: NIfTI, PNG, JPEG or TIFF, and whole slides as
    #: scanners write them. Nothing else is known of such images than their pixels.
    format: Literal["dicom", "files"] = Field(
        default="dicom", exclude_if=lambda given: given == "dicom"
    )

    @model_validator(mode="before")
    @classmethod
    def _size_of_patch(cls, given: object) -> object:
        """Take a patch for the network's input, where one is given."""
        if isinstance(given, dict) and given.get("patch") is not None and "size" not in given:
            return {**given, "size": given["patch"]}
        return given

    @model_validator(mode="after")
    def _patch_alone(self) -> Images:
        if self.patch is None:
            return self
        if self.patch != self.size:
            message = (
                f"patch={list(self.patch)} stands in place of size={list(self.size)}: images keep "
                "their own extent; remove size"
            )
            raise ValueError(message)
        if self.fit != "letterbox":
            message = f"fit={self.fit} brings images to one size, and patch keeps theirs; remove it"
            raise ValueError(message)
        if self.dimensions == 3 and self.spacing is None:
            message = (
                f"patch={list(self.patch)} in 3-D needs spacing: [slices, rows, columns] in mm, so "
                "that a patch is of one extent at every site"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Images:
        if self.neighbours is not None and (
            (self.dimensions, self.channels) != (2, 3)
            or self.slide is not None
            or len(self.series) > 1
        ):
            message = (
                "neighbours makes three channels of a 2-D slice and the two beside it: write size:"
                " [rows, columns] and channels: 3, and neither slide nor several series"
            )
            raise ValueError(message)
        _check_time(self)
        if self.slide is not None and self.series:
            message = (
                "slide takes all levels of a slide, among which series cannot choose; remove series"
            )
            raise ValueError(message)
        if self.slide is not None and (self.dimensions, self.channels) != (2, 3):
            message = (
                f"slide goes with coloured 2-D tiles; size={list(self.size)} and channels="
                f"{self.channels} do not fit it: write size: [rows, columns] and channels: 3"
            )
            raise ValueError(message)
        _check_format(self)
        check_rules(self.series, self.channels, by_header=self.format == "dicom")
        if len(self.series) < 2 and (
            self.drop_channels is not None or self.registration != "frame"
        ):
            message = "drop_channels and register go together with two series or more"
            raise ValueError(message)
        if (self.intensity == "window") != (self.window is not None):
            message = "intensity: window goes together with window: [low, high]"
            raise ValueError(message)
        if self.window is not None and self.window[0] >= self.window[1]:
            message = f"window={list(self.window)} must be [low, high] with low < high"
            raise ValueError(message)
        if self.spacing is not None and self.dimensions == 2:
            message = (
                f"spacing={list(self.spacing)} does not fit the 2-D size={list(self.size)}: images "
                "are resampled in 3-D only; remove spacing, or give size as [slices, rows, columns]"
            )
            raise ValueError(message)
        return self

    @property
    def input_channels(self) -> int:
        """Channels of the network's input."""
        if self.time is not None and self.time.form != "items":
            return self.time.channels
        return len(self.series) if len(self.series) > 1 else self.channels

    @property
    def file_columns(self) -> tuple[str, ...]:
        """Columns of labels.csv that name files, in the order of the channels; () in DICOM."""
        if self.format == "dicom":
            return ()
        return tuple(f"image_{name}" for name in self.channel_names) or ("image",)

    @property
    def reference(self) -> int:
        """Place among `series` of the one that gives the grid."""
        return next((n for n, rule in enumerate(self.series) if rule.reference), 0)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels, where they are series; empty elsewhere."""
        return tuple(rule.name for rule in self.series) if len(self.series) > 1 else ()

    @property
    def may_lack(self) -> tuple[int, ...]:
        """Places among `series` of those that may be zeros."""
        return tuple(n for n, rule in enumerate(self.series) if rule.missing == "zero")

    @property
    def channel_drop(self) -> float:
        """Chance with which each channel but the reference is zeros in a training step."""
        if self.drop_channels is not None:
            return self.drop_channels
        return USUAL_DROP if self.may_lack else 0.0

    @property
    def dimensions(self) -> Literal[2, 3]:
        """Spatial dimensions of the input."""
        return 2 if len(self.size) == 2 else 3

    @property
    def kept_bits(self) -> Literal[16, 32]:
        """Bits that a prepared value is kept with.

        It follows from the configuration alone: a rule that counted a site's patients would let
        one of them move the images of all others.
        """
        if self.bits is not None:
            return self.bits
        if self.may_lack and self.intensity == "zscore":
            return 32  # a series that is absent is zeros exactly, which is not the lowest value
        if self.patch is not None:
            return 16
        return 32 if self.input_channels * math.prod(self.size) <= _MOST_VALUES_OF_32_BITS else 16


def _check_format(images: Images) -> None:
    """Refuse what asks for headers where images are files that have none."""
    if images.format == "dicom":
        return
    for name in (
        "modalities",
        "body_parts",
        "laterality",
        "laterality_column",
        "presentation",
        "units",
    ):
        if getattr(images, name):
            message = f"{name} asks for DICOM headers, which files have none of; remove it"
            raise ValueError(message)
    if images.time is not None and (images.time.by != "auto" or images.time.join != "none"):
        message = "time.by and time.join ask for DICOM headers; files go by their fourth axis"
        raise ValueError(message)
    if len(images.series) == 1:
        message = "files of one series need no rule: name them in the column image; remove series"
        raise ValueError(message)


def _check_time(images: Images) -> None:
    """Refuse what cannot stand beside several pictures of every place."""
    if images.time is None:
        return
    if len(images.series) > 1:
        message = "time goes together with one series; several channels and times are not read yet"
        raise ValueError(message)
    beside = {"slide": images.slide, "neighbours": images.neighbours, "patch": images.patch}
    for name, given in beside.items():
        if given is not None:
            message = f"time and {name} do not go together yet; remove one of them"
            raise ValueError(message)
    if images.channels != 1 and images.time.form != "items":
        message = f"time as {images.time.form} makes the channels itself; remove channels"
        raise ValueError(message)


class NumberColumn(Part):
    """A clinical number and the public constants that scale it: (value - center) / scale."""

    column: str
    center: Real = 0.0
    scale: PositiveFloat = 1.0
    #: log: log1p before centring, for skewed laboratory values.
    transform: Literal["none", "log"] = "none"
    #: Unit of center and scale (UCUM, such as mg/L); a site that declares another one converts
    #: or refuses.
    unit: str | None = Field(default=None, exclude_if=lambda given: given is None)


class CategoryColumn(Part):
    """A clinical category, one indicator per value."""

    column: str
    values: tuple[str, ...] = Field(min_length=1)


class Table(Part):
    """Clinical columns; a missing value becomes 0 beside an indicator of 1."""

    numbers: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Table:
        names = self.columns
        if not names:
            message = "a table needs numbers or categories; leave it out to use images only"
            raise ValueError(message)
        if len(set(names)) != len(names):
            message = f"a column is named twice in {names}"
            raise ValueError(message)
        return self

    @property
    def columns(self) -> list[str]:
        """Columns of labels.csv that it takes."""
        return [c.column for c in self.numbers] + [c.column for c in self.categories]

    @property
    def width(self) -> int:
        """Inputs that the table gives: values, then one missing indicator a column."""
        values = len(self.numbers) + sum(len(c.values) for c in self.categories)
        return values + len(self.numbers) + len(self.categories)


class Split(Part):
    """Which patients train, choose and test; always by patient, never by image.

    Each patient is drawn by itself with these chances (client/cohort/split.py), so parts have about
    the size that they say.
    """

    #: Column of labels.csv that says train, validation or test; given splits are kept.
    column: str | None = None
    test_fraction: float = Field(strict=True, default=0.2, gt=0, lt=1)
    #: Part of the training patients that chooses rounds and models. With `column`, 0 unless it is
    #: given: then so many of those whom the table gives for training are taken from it, whether or
    #: not the table gives validation patients, too.
    validation_fraction: float = Field(strict=True, default=0.15, ge=0, lt=1)
    #: With folds, every seed tests each patient once: metrics are over all folds together. For
    #: runs without privacy alone.
    folds: int | None = Field(strict=True, default=None, ge=2, le=20)

    @model_validator(mode="before")
    @classmethod
    def _given_splits_are_kept(cls, content: object) -> object:
        """Take no validation patients from a given split, unless asked to."""
        if isinstance(content, dict) and content.get("column") is not None:
            return {"validation_fraction": 0.0, **content}
        return content

    @model_validator(mode="after")
    def _fits_together(self) -> Split:
        if self.column is not None and self.folds is not None:
            message = "split takes column or folds, not both"
            raise ValueError(message)
        return self


class Cohort(Part):
    """What a site must have for this run."""

    images: Images | None = None
    table: Table | None = None
    split: Split = Split()
    #: A site with fewer usable training patients does not take part.
    smallest_cohort: PositiveInt = 10
    #: A column whose value alone may give the outcome away; the report says how well it does.
    confounder: str | None = None

    @property
    def file_column(self) -> str:
        """The column that names the image of each row, where images are files; else empty."""
        if self.images is None or not self.images.file_columns:
            return ""
        return self.images.file_columns[self.images.reference]

    @property
    def in_dicom(self) -> bool:
        """Whether its images have headers, by which they are found and described."""
        return self.images is not None and self.images.format == "dicom"

    @model_validator(mode="after")
    def _not_empty(self) -> Cohort:
        if self.images is None and self.table is None:
            message = "a cohort needs images, table, or both"
            raise ValueError(message)
        return self
