"""What a run is: typed once, checked once, the same file for simulation and production.

A run's identity is the SHA-256 of its canonical JSON (`RunConfig.fingerprint`), so that
what a hospital approved is what it trains.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from common.config_errors import explain
from common.errors import ConfigurationError


class _Part(BaseModel):
    """A frozen section of a configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- what is learned ---------------------------------------------------------------------


class DiagnosisTask(_Part):
    """Classes from images, a table, or both."""

    kind: Literal["diagnosis"]
    type: Literal["binary", "multiclass", "multilabel"] = "binary"
    #: Column of labels.csv (binary, multiclass), or one 0/1 column per label (multilabel).
    target: str | tuple[str, ...]
    #: Multiclass: the values of the target column, in order. Binary: (negative, positive), by
    #: default 0 and 1.
    classes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> DiagnosisTask:
        if (self.type == "multilabel") != isinstance(self.target, tuple):
            message = "target is a list of columns when type is multilabel, else one column"
            raise ValueError(message)
        if self.type == "multiclass" and len(self.classes) < 2:
            message = "multiclass needs classes: the values of the target column, two or more"
            raise ValueError(message)
        if self.type == "binary" and len(self.classes) not in {0, 2}:
            message = "binary takes no classes, or two: [negative, positive]"
            raise ValueError(message)
        return self


class PrognosisTask(_Part):
    """Time to an event by a discrete-time hazard, or an outcome by a fixed horizon."""

    kind: Literal["prognosis"]
    outcome: Literal["survival", "fixed_horizon"] = "survival"
    #: Column with 1 where the event was seen, 0 where follow-up ended first.
    event: str = "event"
    #: Column with the time to event or end of follow-up; optional for a fixed horizon.
    time: str | None = None
    unit: Literal["days", "weeks", "months", "years"] = "days"
    #: Right edges of the intervals in `unit`; public, never taken from the patients.
    intervals: tuple[PositiveFloat, ...] = ()
    #: survival: one risk score and a baseline per interval, or an output per interval.
    hazards: Literal["proportional", "free"] = "proportional"
    #: Fixed horizon, and the time at which survival is summarised, in `unit`.
    horizon: PositiveFloat | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PrognosisTask:
        if self.outcome == "survival" and (self.time is None or len(self.intervals) < 2):
            message = "survival needs time: COLUMN and intervals: [two or more right edges]"
            raise ValueError(message)
        if list(self.intervals) != sorted(set(self.intervals)):
            message = f"intervals={list(self.intervals)} must rise"
            raise ValueError(message)
        if self.time is not None and self.outcome == "fixed_horizon" and self.horizon is None:
            message = "fixed_horizon with a time column needs horizon"
            raise ValueError(message)
        return self


class SegmentationTask(_Part):
    """Outlines, in 2-D or 3-D, by Dice and cross-entropy."""

    kind: Literal["segmentation"]
    #: Column of labels.csv with the mask's file, relative to the site's folder.
    mask: str = "mask"
    #: Structures by name: the segment numbers (DICOM SEG) or grey values (PNG, 0 = every
    #: non-zero value) that make them up, e.g. {anterior: [1], posterior: [2]}.
    structures: dict[str, tuple[int, ...]] = Field(default={"lesion": (0,)}, min_length=1)
    #: Weight of cross-entropy beside Dice.
    cross_entropy_weight: NonNegativeFloat = 1.0


Task = Annotated[
    DiagnosisTask | PrognosisTask | SegmentationTask, Field(discriminator="kind")
]

# --- what it is learned from -------------------------------------------------------------


class Images(_Part):
    """How a study's pixels become a network's input."""

    #: Rows x columns (2-D) or slices x rows x columns (3-D) of the network's input.
    size: tuple[PositiveInt, PositiveInt] | tuple[PositiveInt, PositiveInt, PositiveInt]
    channels: Literal[1, 3] = 1
    #: letterbox keeps the shape and pads; stretch fills; crop (3-D) cuts or pads at `spacing`.
    fit: Literal["letterbox", "stretch", "crop"] = "letterbox"
    #: Slice, row and column distance in mm to resample to first (3-D).
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    #: percentile and zscore look at one image at a time; window is fixed in rescaled units.
    intensity: Literal["percentile", "zscore", "window"] = "percentile"
    window: tuple[float, float] | None = None
    #: Modalities that are used (DICOM 0008,0060); empty takes every one.
    modalities: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Images:
        if (self.intensity == "window") != (self.window is not None):
            message = "intensity: window goes together with window: [low, high]"
            raise ValueError(message)
        if self.window is not None and self.window[0] >= self.window[1]:
            message = f"window={list(self.window)} must be [low, high] with low < high"
            raise ValueError(message)
        return self

    @property
    def dimensions(self) -> Literal[2, 3]:
        """Spatial dimensions of the input."""
        return 2 if len(self.size) == 2 else 3


class NumberColumn(_Part):
    """A clinical number and the public constants that scale it: (value - center) / scale."""

    column: str
    center: float = 0.0
    scale: PositiveFloat = 1.0
    #: log: log1p before centring, for skewed laboratory values.
    transform: Literal["none", "log"] = "none"


class CategoryColumn(_Part):
    """A clinical category, one indicator per value."""

    column: str
    values: tuple[str, ...] = Field(min_length=1)


class Table(_Part):
    """Clinical columns; a missing value becomes 0 beside an indicator of 1."""

    numbers: tuple[NumberColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Table:
        names = [c.column for c in (*self.numbers, *self.categories)]
        if not names:
            message = "a table needs numbers or categories; leave it out to use images only"
            raise ValueError(message)
        if len(set(names)) != len(names):
            message = f"a column is named twice in {names}"
            raise ValueError(message)
        return self

    @property
    def width(self) -> int:
        """Inputs that the table gives: values, then one missing indicator a column."""
        values = len(self.numbers) + sum(len(c.values) for c in self.categories)
        return values + len(self.numbers) + len(self.categories)


class Split(_Part):
    """Which patients train, choose and test; always by patient, never by image."""

    #: Column of labels.csv that says train, validation or test; given splits are kept.
    column: str | None = None
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    #: Part of the training patients that chooses rounds and models.
    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    #: With folds, every seed tests each patient once: metrics are over all folds together.
    folds: int | None = Field(default=None, ge=2, le=20)

    @model_validator(mode="after")
    def _fits_together(self) -> Split:
        if self.column is not None and self.folds is not None:
            message = "split takes column or folds, not both"
            raise ValueError(message)
        return self


class Cohort(_Part):
    """What a site must have for this run."""

    images: Images | None = None
    table: Table | None = None
    split: Split = Split()
    #: A site with fewer usable training patients does not take part.
    smallest_cohort: PositiveInt = 10
    #: A column whose value alone may give the outcome away; the report says how well it does.
    confounder: str | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Cohort:
        if self.images is None and self.table is None:
            message = "a cohort needs images, table, or both"
            raise ValueError(message)
        return self


# --- the network -------------------------------------------------------------------------

NetworkName = Literal[
    "small_cnn", "densenet121", "resnet18", "resnet50", "efficientnet_b0", "vit",
    "unet", "segresnet", "dynunet", "swin_unetr", "frozen_features", "table",
]  # fmt: skip
SEGMENTATION_NETWORKS = frozenset({"unet", "segresnet", "dynunet", "swin_unetr"})


class Model(_Part):
    """The network, by name; BatchNorm is replaced by GroupNorm wherever it stands."""

    network: NetworkName
    #: Width of the first level, for small_cnn and the segmentation networks.
    width: PositiveInt = 16
    #: Hidden layers between features (and the table) and the output; () is linear.
    hidden: tuple[PositiveInt, ...] = ()
    #: frozen_features: which weights, by the SHA-256 of their file.
    backbone: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    #: frozen_features: a fixed public random projection to so many features, or none.
    projection: PositiveInt | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)


# --- training ----------------------------------------------------------------------------


class Training(_Part):
    """The rounds, and one site's steps in each of them."""

    rounds: PositiveInt
    local_steps: PositiveInt = 1
    #: Patients in a step; `all` takes every training patient.
    batch_patients: PositiveInt | Literal["all"] = 16
    #: Most images of one patient in one step.
    images_per_patient: PositiveInt = 4
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0
    #: cosine falls to 5 % of the learning rate over all rounds.
    schedule: Literal["constant", "cosine"] = "constant"
    #: FedProx (Li et al. 2020, eq. 2): weight of |w - w_round|^2 / 2.
    proximal: NonNegativeFloat = 0.0
    #: Random flips, shifts and intensity changes of training images.
    augment: bool = False
    #: Exponential average of the global weights over rounds (0: off); post-processing.
    average: float = Field(default=0.0, ge=0, lt=1)


class ServerOptimizer(_Part):
    """What the coordinator does with the mean update (Reddi et al. 2021, algorithm 2)."""

    kind: Literal["sgd", "fedavgm", "fedadam", "fedyogi"] = "sgd"
    learning_rate: PositiveFloat = 1.0
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: PositiveFloat = 1e-3


class Aggregation(_Part):
    """How the sites' updates become one."""

    rule: Literal[
        "mean", "scaffold", "median", "trimmed_mean", "krum", "multi_krum", "flower"
    ] = "mean"
    server: ServerOptimizer = ServerOptimizer()
    #: Public weights by site name; a site that is not named weighs `default_weight`.
    weights: dict[str, PositiveFloat] = {}
    default_weight: PositiveFloat = 1.0
    #: trimmed_mean: part cut at each end. krum: sites that may be faulty.
    trim_fraction: float = Field(default=0.2, ge=0, lt=0.5)
    faulty_sites: int = Field(default=1, ge=0)
    #: flower: a class of flwr.serverapp.strategy and its arguments.
    strategy: str | None = None
    arguments: dict[str, float | int | bool | str] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Aggregation:
        if (self.rule == "flower") != (self.strategy is not None):
            message = "rule: flower goes together with strategy: CLASS of flwr.serverapp.strategy"
            raise ValueError(message)
        return self


class Personalisation(_Part):
    """What each site keeps for itself."""

    #: local_norm: FedBN (Li et al. 2021). personal_head: FedRep/FedPer. fine_tune: at the end.
    method: Literal["none", "local_norm", "personal_head", "fine_tune"] = "fine_tune"
    steps: PositiveInt = 50
    learning_rate: PositiveFloat | None = None


class Selection(_Part):
    """Which round's weights are kept, by a rule fixed before the run."""

    #: best: the round with the smallest merged validation loss (or best metric). last: no choice.
    rule: Literal["best", "last"] = "best"
    by: Literal["loss", "metric"] = "loss"
    #: Rounds without improvement before the run stops; none runs them all.
    patience: PositiveInt | None = None
    #: Validate every so many rounds.
    every: PositiveInt = 1


class Evaluation(_Part):
    """What is measured, and what may leave a site."""

    metric: Literal[
        "auroc", "average_precision", "macro_auroc", "concordance", "brier", "dice"
    ] | None = None
    #: A patient's images are averaged before scoring, or each is scored.
    unit: Literal["patient", "image"] = "patient"
    #: Counts of patients below this are not released.
    smallest_cell: PositiveInt = 5
    specificity: float = Field(default=0.9, gt=0, lt=1)
    bootstrap: PositiveInt = 1000
    #: Standard deviation of Gaussian noise on released counts, charged to the ledger (0: off).
    count_noise: NonNegativeFloat = 0.0


# --- privacy -----------------------------------------------------------------------------


class PatientPrivacy(_Part):
    """Patient-level differential privacy: the budget of the whole run, at each site."""

    unit: Literal["patient"]
    epsilon: PositiveFloat
    #: per_site is 1 / (10 x the site's training patients).
    delta: Annotated[float, Field(gt=0, lt=1)] | Literal["per_site"] = "per_site"
    #: Public divisor of the sum: the site's training patients, by site, as agreed in public.
    #: A site that is not named divides by `default_patients`; `declared` publishes the count.
    public_patients: dict[str, PositiveInt] = {}
    default_patients: PositiveInt | Literal["declared"] = "declared"
    clipping: Literal["automatic", "flat"] = "automatic"
    clip_norm: PositiveFloat = 1.0
    #: Probability that a patient is in a step; 1 takes all and needs no secret sampling.
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    #: Another way to train than without privacy; by default the same.
    training: Training | None = None
    model: Model | None = None
    aggregation: Aggregation | None = None


class RunConfig(_Part):
    """One run, whole."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    description: str = ""
    task: Task
    cohort: Cohort
    model: Model
    training: Training
    aggregation: Aggregation = Aggregation()
    personalisation: Personalisation = Personalisation()
    selection: Selection = Selection()
    evaluation: Evaluation = Evaluation()
    #: No default: a run without privacy says `privacy: none`.
    privacy: PatientPrivacy | Literal["none"]
    #: Synthetic hospitals for runs without --data.
    synthetic: Synthetic | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        _check_network(self.task, self.cohort, self.model)
        if self.privacy != "none" and self.privacy.model is not None:
            _check_network(self.task, self.cohort, self.privacy.model)
        return self

    def canonical_json(self) -> str:
        """Return the configuration as JSON with sorted keys and no spaces: one text a run."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


class Synthetic(_Part):
    """Hospitals that are made up: real DICOM files, invented patients."""

    modality: Literal["xray", "ct"] = "xray"
    #: Patients of all hospitals together.
    patients: int = Field(default=400, ge=40)
    seed: int = 0


def _check_network(task: DiagnosisTask | PrognosisTask | SegmentationTask, cohort: Cohort, model: Model) -> None:
    segments = model.network in SEGMENTATION_NETWORKS
    if segments != (task.kind == "segmentation"):
        message = f"network {model.network} does not fit task {task.kind}"
        raise ValueError(message)
    if (model.network == "table") != (cohort.images is None):
        message = "network: table goes with a cohort without images, and only with it"
        raise ValueError(message)
    if segments and cohort.table is not None:
        message = "segmentation takes images only; remove cohort.table"
        raise ValueError(message)
    images = cohort.images
    if model.network == "frozen_features" and images is not None and images.dimensions == 3:
        message = "frozen_features is 2-D; give cohort.images.size as [rows, columns]"
        raise ValueError(message)


def load_config(path: Path) -> RunConfig:
    """Read a run's YAML file; ConfigurationError names the file, the key and what fits."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        )
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        message = f"Cannot read the configuration {path}: {error.strerror}.{hint}"
        raise ConfigurationError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text, so it is no configuration file."
        raise ConfigurationError(message) from error
    return parse_config(text, source=str(path))


def parse_config(text: str, *, source: str = "configuration") -> RunConfig:
    """Read a run from YAML or canonical JSON text."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = f"{source} is not YAML: {error}"
        raise ConfigurationError(message) from error
    if not isinstance(content, dict):
        message = f"{source} holds {type(content).__name__}, expected keys like name: and task:."
        raise ConfigurationError(message)
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, RunConfig, source)) from error


RunConfig.model_rebuild()
