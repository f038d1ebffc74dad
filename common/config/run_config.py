"""Configuration of a run, the same file for simulation and production.

A run's identity is the SHA-256 of its canonical JSON (`RunConfig.fingerprint`), so that
what a hospital approved is what it trains. The sections are written in task.py, cohort.py,
training.py and privacy.py, and imported from here.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Container
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from common.config.changes import Changes, changed
from common.config.cohort import CategoryColumn, Cohort, Images, NumberColumn, Slide, Split, Table
from common.config.errors import explain
from common.config.extension import (
    ALL_KINDS,
    Extension,
    ExtensionArguments,
    ExtensionKind,
    ExtensionUse,
    distribution_of,
    is_extension,
)
from common.config.network_sizes import misfit
from common.config.patches import check_patches
from common.config.privacy import Evaluation, PatientPrivacy
from common.config.section import Part
from common.config.task import (
    DiagnosisTask,
    ExtensionTask,
    LabelProbabilities,
    PrognosisTask,
    RegressionTask,
    SegmentationTask,
    Task,
)
from common.config.training import (
    SEGMENTATION_NETWORKS,
    Aggregation,
    Exchange,
    Flip,
    Model,
    NetworkName,
    Personalisation,
    Selection,
    ServerOptimizer,
    Training,
    scaffold_misfit,
)
from common.config.yaml import read_yaml, write_yaml
from common.platform.bounded_json import Bounds, check_bounds, read_json
from common.platform.errors import ConfigurationError

__all__ = [
    "SEGMENTATION_NETWORKS",
    "Aggregation",
    "CategoryColumn",
    "Cohort",
    "DiagnosisTask",
    "Evaluation",
    "Exchange",
    "Extension",
    "ExtensionTask",
    "Images",
    "Model",
    "NetworkName",
    "NumberColumn",
    "PatientPrivacy",
    "Personalisation",
    "PrognosisTask",
    "RegressionTask",
    "RunConfig",
    "SegmentationTask",
    "Selection",
    "ServerOptimizer",
    "Slide",
    "Split",
    "Synthetic",
    "Table",
    "Task",
    "Training",
    "load_config",
    "parse_config",
    "read_config",
    "without_privacy",
]

#: Of a configuration as it travels: a site reads no larger one. A run of 500 named hospitals has
#: 60,000 characters, the longest that ships 5,000.
CONFIG_BOUNDS = Bounds(characters=256 * 1024, depth=16, values=20_000)


class Synthetic(Part):
    """Hospitals that are made up: real DICOM files, invented patients."""

    modality: Literal["xray", "ct"] = "xray"
    #: Patients of all hospitals together.
    patients: int = Field(strict=True, default=400, ge=40)
    seed: int = Field(strict=True, default=0, ge=0)


class RunConfig(Part):
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
    exchange: Exchange = Exchange()
    #: No default: a run without privacy says `privacy: none`.
    privacy: PatientPrivacy | Literal["none"]
    #: Synthetic hospitals for runs without --data.
    synthetic: Synthetic | None = None
    #: The distributions that extensions come from, by version and content. The coordinator writes
    #: them in; sites run no others.
    extensions: tuple[Extension, ...] = Field(default=(), exclude_if=lambda given: not given)

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        _check_extensions(self)
        _check_inputs(self.task, self.cohort)
        _check_slides(self.task, self.cohort)
        _check_network(self.task, self.cohort, self.model)
        _check_transforms(self.cohort, self.model, self.training)
        _check_metrics(self.task, self.evaluation)
        _check_loss(self)
        _check_pool(self)
        check_patches(self)
        _check_emphasis(self)
        _check_flips(self)
        fault = scaffold_misfit(self.training, self.aggregation)
        if fault is not None:
            raise ValueError(fault)
        if self.privacy != "none" and self.privacy.model is not None:
            _check_network(self.task, self.cohort, self.privacy.model)
        if self.privacy != "none":
            _check_private_split(self.cohort)
            _check_private_training(self.privacy.training or self.training)
            _check_private_aggregation(self.privacy.aggregation or self.aggregation)
        return self

    def in_force(self) -> RunConfig:
        """Return the run as it is trained between hospitals: its privacy section applied.

        What the privacy section says of training, model and aggregation stands where it takes
        effect; applying it again changes nothing. This is what a hospital approves.
        """
        privacy = self.privacy
        if privacy == "none":
            return self
        return self.model_copy(
            update={
                "personalisation": Personalisation(method="none"),
                "training": privacy.training or self.training,
                "model": privacy.model or self.model,
                "aggregation": privacy.aggregation or self.aggregation,
                # A choice among rounds looks at validation patients, which no charge covers.
                "selection": self.selection.model_copy(update={"rule": "last"}),
                "privacy": privacy.model_copy(
                    update={"training": None, "model": None, "aggregation": None}
                ),
            }
        ).without_idle_extensions()

    def extension_uses(self) -> tuple[tuple[ExtensionKind, ExtensionUse], ...]:
        """Return what the run takes from extensions, by kind, each once."""
        privacy = None if self.privacy == "none" else self.privacy
        found: list[tuple[ExtensionKind, ExtensionUse]] = []
        if isinstance(self.task, ExtensionTask):
            found += [("tasks", _use(self.task.name, self.task.arguments))]
        for part in (self, privacy):
            if part is None:
                continue
            if part.model and is_extension(part.model.network):
                found += [("networks", _use(part.model.network, part.model.arguments))]
            elif part.model and is_extension(part.model.backbone):
                found += [("backbones", _use(part.model.backbone, part.model.arguments))]
            if part.training:
                found += [("losses", part.training.loss)] if part.training.loss else []
                found += [("transforms", use) for use in part.training.transforms]
            if part.aggregation and is_extension(part.aggregation.rule):
                found += [("aggregators", _use(part.aggregation.rule, part.aggregation.arguments))]
        found += [("metrics", use) for use in self.evaluation.metrics]
        return tuple(dict.fromkeys(found))

    def extension_names(self, kinds: Container[ExtensionKind] = ALL_KINDS) -> tuple[str, ...]:
        """Return what the run takes from extensions, as DISTRIBUTION/NAME."""
        return tuple(
            dict.fromkeys(use.name for kind, use in self.extension_uses() if kind in kinds)
        )

    def without_idle_extensions(self) -> RunConfig:
        """Return the run without distributions that nothing of it names any more."""
        named = {distribution_of(name) for name in self.extension_names()}
        kept = tuple(e for e in self.extensions if e.distribution in named)
        return self.model_copy(update={"extensions": kept})

    @property
    def keeps_features(self) -> bool:
        """Return whether a site keeps the features of tiles in place of the tiles."""
        images = self.cohort.images
        slides = images is not None and images.slide is not None
        return slides and self.model.network == "frozen_features"

    def canonical_json(self) -> str:
        """Return the configuration as JSON with sorted keys and no spaces: one text a run.

        Structures stay in their order, which numbers them in label maps.
        """
        content = json.loads(json.dumps(self.model_dump(mode="json"), sort_keys=True))
        if isinstance(self.task, SegmentationTask):
            content["task"]["structures"] = self.task.structures
        return json.dumps(content, separators=(",", ":"), ensure_ascii=True)

    def to_yaml(self) -> str:
        """Return the configuration as YAML, every default written out."""
        return write_yaml(self.model_dump(mode="json"))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()


def _use(name: str, arguments: ExtensionArguments) -> ExtensionUse:
    return ExtensionUse(name=name, arguments=arguments)


def _check_extensions(config: RunConfig) -> None:
    """Refuse two contents of one distribution, and distributions that nothing names."""
    given = [extension.distribution for extension in config.extensions]
    named = {distribution_of(name) for name in config.extension_names()}
    for distribution in given:
        if given.count(distribution) > 1:
            message = f"extensions names {distribution} twice; expected one version and content"
            raise ValueError(message)
        if distribution not in named:
            message = (
                f"extensions names {distribution}, which nothing in the run takes anything from; "
                f"remove it, or write e.g. model.network: {distribution}/NAME"
            )
            raise ValueError(message)


def _check_slides(task: Task, cohort: Cohort) -> None:
    """Refuse outlines of tiles, which no mask is of."""
    if task.outlines and cohort.images is not None and cohort.images.slide is not None:
        message = "cohort.images.slide goes with one answer a patient; remove it, or the outlines"
        raise ValueError(message)


def _check_inputs(task: Task, cohort: Cohort) -> None:
    """Refuse a column that is predicted and given: the network would read off its answer."""
    table = cohort.table
    for name in () if table is None else table.columns:
        if name in task.outcome_columns:
            message = (
                f"cohort.table takes column {name}, which task is to predict: the "
                "network would read its answer off its input; remove it from cohort.table, or "
                "predict another column"
            )
            raise ValueError(message)


def _check_private_split(cohort: Cohort) -> None:
    """Refuse folds: a patient who is tested in one trains in all others, each a run of its own."""
    if cohort.split.folds is not None:
        message = (
            f"a private run takes no cohort.split.folds={cohort.split.folds}: each patient would "
            "train in all folds but one, and be charged for one; write cohort.split."
            "test_fraction: 0.2 in place of folds, or privacy: none"
        )
        raise ValueError(message)


def without_privacy(config: RunConfig) -> RunConfig:
    """Return the run without privacy, and without the noise that private runs are measured with."""
    exact = config.evaluation.model_copy(update={"count_noise": 0.0})
    plain = config.model_copy(update={"privacy": "none", "evaluation": exact})
    return plain.without_idle_extensions()


def _check_private_training(training: Training) -> None:
    """Refuse what the private step does not do, rather than leave it out unsaid."""
    wanted = {
        "proximal": training.proximal > 0,
        "augment": bool(training.augment),
        "transforms": bool(training.transforms),
    }
    asked = [name for name, here in wanted.items() if here]
    if asked:
        message = (
            f"a private run takes no {' and no '.join(asked)}; give privacy.training a section "
            "of its own without"
        )
        raise ValueError(message)


def _check_private_aggregation(aggregation: Aggregation) -> None:
    """Refuse SCAFFOLD, whose correction of the gradients the private step does not make."""
    if aggregation.rule == "scaffold":
        message = (
            "a private run takes no aggregation.rule=scaffold; give privacy.aggregation a section "
            "of its own, e.g. {rule: mean}"
        )
        raise ValueError(message)


def _check_transforms(cohort: Cohort, model: Model, training: Training) -> None:
    """Refuse changes of images where no image is there when a network is trained."""
    if cohort.images is not None and model.network != "frozen_features":
        return
    for name in ("transforms", "augment"):
        if getattr(training, name):
            message = (
                f"training.{name} acts on images, which network: {model.network} does not take; "
                "remove it"
            )
            raise ValueError(message)


def _check_metrics(task: Task, evaluation: Evaluation) -> None:
    """Refuse metrics where no counts by probability are released, and one that is named twice."""
    names = [use.name for use in evaluation.metrics]
    counted = isinstance(task.predicts, LabelProbabilities)
    for name in names:
        if names.count(name) > 1:
            message = f"evaluation.metrics names {name} twice, whose values have one place"
            raise ValueError(message)
        if not counted:
            message = (
                f"evaluation.metrics takes {name}: extensions' metrics are of counts by predicted "
                f"probability, and {task.kind} of this kind releases none; remove it"
            )
            raise ValueError(message)


def _check_loss(config: RunConfig) -> None:
    """Refuse a loss beside that of a task that brings its own."""
    private = None if config.privacy == "none" else config.privacy.training
    for training in (config.training, private):
        if isinstance(config.task, ExtensionTask) and training and training.loss:
            message = (
                f"training.loss={training.loss.name} stands beside task.name={config.task.name}, "
                "which is learned by its own loss; remove training.loss"
            )
            raise ValueError(message)


def _check_flips(config: RunConfig) -> None:
    """Refuse flips of what has one side alone, and of axes that are not there."""
    images, steps = config.cohort.images, config.training.augment
    if images is None or not steps:
        return
    axes = {"columns"} if steps is True else set()
    for step in steps if isinstance(steps, tuple) else ():
        axes |= set(step.axes) if isinstance(step, Flip) else set()
    if "slices" in axes and images.dimensions == 2:
        message = "training.augment flips slices, which 2-D images have none of"
        raise ValueError(message)
    one_sided = images.laterality is not None or images.laterality_column is not None
    if one_sided and "columns" in axes:
        message = (
            "training.augment flips columns, which makes a left side of a right one, and the run "
            "is of one side (cohort.images.laterality); give a list of steps without that flip"
        )
        raise ValueError(message)


def _check_emphasis(config: RunConfig) -> None:
    """Refuse weights of labels where the loss has no such labels, or is an extension's."""
    private = None if config.privacy == "none" else config.privacy.training
    for training in (config.training, private):
        if training is None:
            continue
        given = {
            "class_weights": bool(training.class_weights),
            "focal": training.focal is not None,
            "tversky": training.tversky is not None,
        }
        named = [name for name, used in given.items() if used]
        if named and (training.loss is not None or isinstance(config.task, ExtensionTask)):
            message = f"training.{named[0]} changes a loss of ours; an extension's is given"
            raise ValueError(message)
        _check_emphasis_of_task(config.task, training, named)


def _check_emphasis_of_task(task: Task, training: Training, named: list[str]) -> None:
    if not isinstance(task.predicts, LabelProbabilities):
        named = [name for name in named if name != "tversky" or not task.outlines]
        if named:
            takes = "tversky" if task.outlines else "none of them"
            message = f"training.{named[0]} goes with labels; task.kind={task.kind} takes {takes}"
            raise ValueError(message)
        return
    if "tversky" in named:
        message = f"training.tversky goes with outlines; for task.kind={task.kind} take focal"
        raise ValueError(message)
    known = {*task.labels, *(name for named in task.named_values.values() for name in named)}
    odd = sorted(training.class_weights.keys() - known)
    if odd:
        message = f"training.class_weights names {odd[0]!r}, expected {', '.join(sorted(known))}"
        raise ValueError(message)


def _check_pool(config: RunConfig) -> None:
    """Refuse a pool where there is nothing to pool, or where each picture is measured alone."""
    private = None if config.privacy == "none" else config.privacy.model
    for model in (config.model, private):
        if model is None or model.pool is None:
            continue
        if model.network == "table" or model.network in SEGMENTATION_NETWORKS:
            message = (
                f"model.pool={model.pool} makes one answer of a patient's pictures, and "
                f"{model.network} gives none of a picture; remove pool"
            )
            raise ValueError(message)
        if config.evaluation.unit == "image":
            message = (
                f"model.pool={model.pool} gives one answer a patient, and evaluation.unit=image "
                "measures each picture by itself; write evaluation.unit: patient, or remove pool"
            )
            raise ValueError(message)


def _check_network(task: Task, cohort: Cohort, model: Model) -> None:
    if is_extension(model.network):
        if task.outlines and cohort.table is not None:
            message = "segmentation takes images only; remove cohort.table"
            raise ValueError(message)
        return  # what else it takes, it says itself, once a site's policy let it be loaded
    segments = model.network in SEGMENTATION_NETWORKS
    if segments != task.outlines:
        fits = "densenet121" if segments else "unet"
        message = (
            f"model.network={model.network} does not fit task.kind={task.kind}; take e.g. {fits}"
        )
        raise ValueError(message)
    if (model.network == "table") != (cohort.images is None):
        message = (
            f"model.network={model.network} does not fit the cohort:"
            " network: table goes with a cohort without images, and only with it"
        )
        raise ValueError(message)
    if segments and cohort.table is not None:
        message = "segmentation takes images only; remove cohort.table"
        raise ValueError(message)
    images = cohort.images
    if model.network == "frozen_features" and images is not None and len(images.series) > 1:
        message = (
            "model.network=frozen_features takes one series, as its backbone saw pictures of one; "
            f"cohort.images.series has {len(images.series)}"
        )
        raise ValueError(message)
    if images is not None and images.time is not None:
        _check_phases(task, images, model)
    flat = model.network == "frozen_features" and not is_extension(model.backbone)
    if flat and images is not None and images.dimensions == 3:
        message = (
            f"frozen_features with backbone {model.backbone} is 2-D; give cohort.images.size as "
            "[rows, columns]"
        )
        raise ValueError(message)
    fault = misfit(model, images)
    if fault is not None:
        raise ValueError(fault)


def _check_phases(task: Task, images: Images, model: Model) -> None:
    """Refuse pictures of several times where a task or network takes one."""
    if task.outlines:
        message = "segmentation takes one picture of each place; remove cohort.images.time"
        raise ValueError(message)
    frozen = model.network == "frozen_features" and not is_extension(model.backbone)
    if frozen and images.input_channels not in {1, 3}:
        message = (
            f"frozen_features with backbone {model.backbone} takes 1 or 3 channels, "
            f"cohort.images.time gives {images.input_channels}; write e.g. as: difference with "
            "frames: 2"
        )
        raise ValueError(message)


def load_config(path: Path, changes: Changes = MappingProxyType({})) -> RunConfig:
    """Read a run's YAML file; ConfigurationError names the file, the key and what fits.

    `changes` are values that a person gave beside the file, by key.
    """
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
    beside = "".join(f" with {key}={value}" for key, value in changes.items())
    return parse_config(text, source=f"{path}{beside}", changes=changes)


def parse_config(
    text: str, *, source: str = "configuration", changes: Changes = MappingProxyType({})
) -> RunConfig:
    """Read a run from YAML text, as people write it; ConfigurationError says what is wrong.

    One that no site would read, because of its size, is refused here already.
    """
    try:
        content = read_yaml(text)
    except yaml.YAMLError as error:
        message = f"{source} is not YAML as it is read here: {error}"
        raise ConfigurationError(message) from error
    config = _checked(changed(content, changes) if changes else content, source)
    try:
        check_bounds(config.canonical_json(), CONFIG_BOUNDS)
    except ValueError as error:
        message = f"{source} is larger than sites read: written as JSON, {error}. Shorten it."
        raise ConfigurationError(message) from error
    return config


def read_config(text: str, *, source: str = "configuration") -> RunConfig:
    """Read a run from JSON, as it travels; the work is bounded, whoever wrote it."""
    try:
        content = read_json(text, CONFIG_BOUNDS)
    except ValueError as error:
        message = f"{source} is not JSON as it is read here: {error!s:.300}"
        raise ConfigurationError(message) from error
    return _checked(content, source)


def _checked(content: object, source: str) -> RunConfig:
    if not isinstance(content, dict):
        message = f"{source} holds {type(content).__name__}, expected keys like name: and task:."
        raise ConfigurationError(message)
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(explain(error, RunConfig, source)) from error
