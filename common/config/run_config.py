"""Configuration of a run, the same file for simulation and production.

A run's identity is the SHA-256 of its canonical JSON (`RunConfig.fingerprint`), so that
what a hospital approved is what it trains. The sections are written in tasks/, cohort.py,
training.py and privacy.py, and imported from here; what they must be for each other stands in
network_fits.py, patches.py and training_fits.py.
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

from common.config.aggregation import Aggregation, ServerOptimizer
from common.config.changes import Changes, changed
from common.config.cohort import CategoryColumn, Cohort, Images, NumberColumn, Slide, Split, Table
from common.config.errors import explain
from common.config.network_fits import check_network
from common.config.parts.extension import (
    ALL_KINDS,
    Extension,
    ExtensionArguments,
    ExtensionKind,
    ExtensionUse,
    distribution_of,
    is_extension,
)
from common.config.parts.section import Part
from common.config.patches import check_patches
from common.config.privacy import Evaluation, PatientPrivacy
from common.config.tasks import Task
from common.config.tasks.diagnosis import DiagnosisTask
from common.config.tasks.extension_task import ExtensionTask
from common.config.tasks.prognosis import PrognosisTask
from common.config.tasks.regression import RegressionTask
from common.config.tasks.segmentation import SegmentationTask
from common.config.training import (
    SEGMENTATION_NETWORKS,
    Exchange,
    Model,
    NetworkName,
    Personalisation,
    Selection,
    Training,
)
from common.config.training_fits import check_training
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
        check_network(self)
        check_patches(self)
        check_training(self)
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
    def trainings(self) -> tuple[Training, ...]:
        """Return each section on training: without privacy, and with it where that has its own."""
        private = None if self.privacy == "none" else self.privacy.training
        return (self.training, *((private,) if private else ()))

    @property
    def models(self) -> tuple[Model, ...]:
        """Return each section on the network: without privacy, and with it where it has its own."""
        private = None if self.privacy == "none" else self.privacy.model
        return (self.model, *((private,) if private else ()))

    @property
    def noised_rows(self) -> int:
        """Return rows of noised counts of one evaluation: each patient is in one cell of each."""
        return self.task.noised_rows + (self.evaluation.threshold == "most_probable")

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


def without_privacy(config: RunConfig) -> RunConfig:
    """Return the run without privacy, and without the noise that private runs are measured with."""
    exact = config.evaluation.model_copy(update={"count_noise": 0.0})
    plain = config.model_copy(update={"privacy": "none", "evaluation": exact})
    return plain.without_idle_extensions()


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
