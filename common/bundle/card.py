"""card.json: what a bundle says about itself, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from common.bundle.evidence import Evidence, evidence_json
from common.bundle.origin import Json, Origin, origin_json
from common.bundle.words import INTENDED_USE, NOT_FOR, input_json, patients_words, table_columns
from common.config.parts.extension import distribution_of
from common.config.run_config import RunConfig
from common.metrics.constant_predictor import beside
from common.metrics.intervals import Estimate
from common.models.efficientnet_lite import SHA256 as EFFICIENTNET_LITE0

__all__ = ["Card", "Metrics", "card_json", "table_columns"]

#: Arm of the comparison, then site (or `all`), then metric.
Metrics = Mapping[str, Mapping[str, Mapping[str, Estimate]]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a run knows of its model that the weights do not say."""

    metrics: Metrics  # with intervals; empty when nothing was measured
    privacy: str  # the whole statement, with what it does not cover
    seed: int  # of the first weights and the data order
    round: int  # whose weights these are
    origin: Origin | None = None  # of a run between hospitals
    evidence: Evidence = field(default_factory=Evidence)


def card_json(config: RunConfig, card: Card, files: Mapping[str, str]) -> str:
    """Return card.json; `files` are the bundle's other files with their SHA-256."""
    content: Json = {
        "schema": 1,
        "name": config.name,
        "description": config.description,
        "intended_use": INTENDED_USE,
        "not_for": NOT_FOR,
        "inputs": list(input_json(config)),
        "outputs": [
            {
                "name": "prediction",
                "meaning": config.task.meaning,
                "labels": list(config.task.labels),
            },
            {"name": "output", "meaning": "the network's output before the last function"},
        ],
        "patients": patients_words(config),
        "metrics": _metrics(card.metrics),
        "constant_predictor": {
            arm: beside({n: e.to_json() for n, e in sites.get("all", {}).items()})
            for arm, sites in card.metrics.items()
        },
        **evidence_json(card.evidence),
        "privacy": card.privacy,
        "run": {
            "fingerprint": config.fingerprint(),
            "seed": card.seed,
            "round": card.round,
            "configuration": json.loads(config.canonical_json()),
        },
        "origin": None if card.origin is None else origin_json(card.origin),
        "backbone": _backbone(config),
        "start": None if config.model.start is None else config.model.start.model_dump(mode="json"),
        "files": dict(files),
        "versions": {name: _version(name) for name in _NAMED},
    }
    return json.dumps(content, indent=1) + "\n"


_NAMED = ("wardround", "torch", "monai", "onnx", "onnxscript", "numpy")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"  # a checkout that is run in place


def _metrics(metrics: Metrics) -> Json:
    return {
        arm: {
            site: {name: value.to_json() for name, value in values.items()}
            for site, values in sites.items()
        }
        for arm, sites in metrics.items()
    }


def _backbone(config: RunConfig) -> Json:
    if config.model.network != "frozen_features":
        return None
    # In model.onnx it is included; model.safetensors holds what was trained on its features.
    name = config.model.backbone
    for extension in config.extensions:
        if extension.distribution == distribution_of(name):
            return {"name": name, "content": extension.content}
    start = config.model.start
    if start is not None:
        return {"name": name, **start.model_dump(mode="json")}
    return {"name": name, "sha256": EFFICIENTNET_LITE0}
