"""What a bundle says about itself: card.json for programs, README.md for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from common.bundle_origin import Json, Origin, origin_json, origin_text
from common.config import (
    DiagnosisTask,
    Images,
    PrognosisTask,
    RunConfig,
    SegmentationTask,
    Table,
)
from common.metrics import Estimate
from common.models.efficientnet_lite import SHA256 as EFFICIENTNET_LITE0

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


def card_json(config: RunConfig, card: Card, files: Mapping[str, str]) -> str:
    """Return card.json; `files` are the bundle's other files with their SHA-256."""
    content: Json = {
        "schema": 1,
        "name": config.name,
        "description": config.description,
        "inputs": list(_inputs(config)),
        "outputs": [
            {"name": "prediction", "meaning": meaning(config), "labels": list(labels(config))},
            {"name": "output", "meaning": "the network's output before the last function"},
        ],
        "patients": _patients(config),
        "metrics": _metrics(card.metrics),
        "privacy": card.privacy,
        "run": {
            "fingerprint": config.fingerprint(),
            "seed": card.seed,
            "round": card.round,
            "configuration": json.loads(config.canonical_json()),
        },
        "origin": None if card.origin is None else origin_json(card.origin),
        "backbone": _backbone(config),
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


def _inputs(config: RunConfig) -> list[Json]:
    images, table = config.cohort.images, config.cohort.table
    inputs: list[Json] = []
    if images is not None:
        inputs.append(_image(images))
    if table is not None:
        inputs.append(_table(table))
    return inputs


def _image(images: Images) -> Json:
    axes = ["rows", "columns"] if images.dimensions == 2 else ["slices", "rows", "columns"]
    return {
        "name": "image",
        "type": "float32",
        "shape": ["items", images.channels, *images.size],
        "axes": ["items", "channels", *axes],
        "preprocessing": json.loads(images.model_dump_json()),
    }


def _table(table: Table) -> Json:
    return {
        "name": "table",
        "type": "float32",
        "shape": ["items", table.width],
        "columns": list(table_columns(table)),
        "preprocessing": json.loads(table.model_dump_json()),
    }


def table_columns(table: Table) -> tuple[str, ...]:
    """Return what stands in each column of the network's table, in order."""
    values = [number.column for number in table.numbers]
    values += [f"{c.column}={value}" for c in table.categories for value in c.values]
    names = [c.column for c in table.numbers] + [c.column for c in table.categories]
    return (*values, *(f"{name} is missing" for name in names))


def labels(config: RunConfig) -> tuple[str, ...]:
    """Return the names of a prediction's entries (a label map's values, for outlines)."""
    match config.task:
        case DiagnosisTask(type="binary", target=target, classes=classes):
            return (classes[1],) if classes else (str(target),)
        case DiagnosisTask(type="multiclass", classes=classes):
            return classes
        case DiagnosisTask(target=target):
            return tuple(target)
        case PrognosisTask(outcome="survival", intervals=intervals, unit=unit):
            return tuple(f"{edge:g} {unit}" for edge in intervals)
        case PrognosisTask(event=event):
            return (event,)
        case SegmentationTask(structures=structures):
            return ("background", *structures)


def meaning(config: RunConfig) -> str:
    """Return in words what a prediction is."""
    match config.task:
        case DiagnosisTask(type="multiclass"):
            return "probability of each class; they sum to 1"
        case DiagnosisTask():
            return "probability of each label, by itself"
        case PrognosisTask(outcome="survival"):
            return "probability of no event until each time"
        case PrognosisTask(horizon=horizon, unit=unit):
            return f"probability of the event{f' within {horizon:g} {unit}' if horizon else ''}"
        case SegmentationTask():
            return "label of each voxel: the position of its structure's name in labels"


def _patients(config: RunConfig) -> str:
    if config.task.kind == "segmentation" or config.evaluation.unit == "image":
        return "Each item was scored by itself."
    return "A patient's items were scored together: the mean of `output`, then the last function."


def _backbone(config: RunConfig) -> Json:
    if config.model.network != "frozen_features":
        return None
    # In model.onnx it is included; model.safetensors holds what was trained on its features.
    return {"name": config.model.backbone, "sha256": EFFICIENTNET_LITE0}


def readme(config: RunConfig, card: Card) -> str:
    """Return README.md: what the model is, how to load it, and what its privacy is."""
    shown = ", ".join(labels(config))
    return _README.format(
        name=config.name,
        description=config.description or "A model trained by several hospitals.",
        meaning=meaning(config),
        labels=shown,
        privacy=card.privacy.strip() or "No privacy claim.",
        origin="" if card.origin is None else origin_text(card.origin),
    )


_README = """\
# {name}

{description}

It gives: {meaning}. Labels: {labels}.

`card.json` says how inputs are made, what was measured on whose patients, with which intervals,
and what the run was. It is no medical device: nobody has approved it for care.

## Load it

```python
import json
from pathlib import Path
import numpy as np
import onnxruntime

card = json.loads(Path("card.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession("model.onnx")
inputs = {{}}  # preprocessed as card["inputs"] says; here: one item of zeros
for entry in card["inputs"]:
    inputs[entry["name"]] = np.zeros([1, *entry["shape"][1:]], dtype=np.float32)
prediction = session.run(["prediction"], inputs)[0]
print(card["outputs"][0]["labels"], prediction)
```

`model.safetensors` holds the trained parameters by name, for `common.bundle.read_bundle`.

{origin}## Privacy

{privacy}
"""
