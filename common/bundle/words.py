"""A model's inputs and outputs in words, the same in card, README and metadata."""

from __future__ import annotations

import json
from typing import TypeAlias

from common.bundle.origin import Json
from common.config.run_config import Images, RunConfig, Table

_Described: TypeAlias = dict[str, Json]

INTENDED_USE = (
    "Research on data like that of the sites that trained it: to measure how well it does "
    "elsewhere, to compare with, to train on. Its findings are to be read beside the image by "
    "somebody who could do without them."
)
NOT_FOR = (
    "Decisions about a patient's care, screening or triage without a reader, patients, machines "
    "or findings that the sites did not have. It is no medical device: nobody has approved it."
)


def input_json(config: RunConfig) -> list[_Described]:
    """Return the network's inputs: name, shape, and how they are prepared."""
    images, table = config.cohort.images, config.cohort.table
    inputs: list[_Described] = []
    if images is not None:
        inputs.append(_image(images))
    if table is not None:
        inputs.append(_table(table))
    return inputs


def _image(images: Images) -> _Described:
    axes = ["rows", "columns"] if images.dimensions == 2 else ["slices", "rows", "columns"]
    return {
        "name": "image",
        "type": "float32",
        "shape": ["items", images.input_channels, *images.size],
        "axes": ["items", "channels", *axes],
        "preprocessing": json.loads(images.model_dump_json()),
    }


def channel_names(images: Images) -> tuple[str, ...]:
    """Return what each channel of the network's image is."""
    if images.channel_names:
        return images.channel_names
    if images.neighbours is not None:
        return "slice before", "slice", "slice after"
    return ("image",) if images.channels == 1 else ("red", "green", "blue")


def _table(table: Table) -> _Described:
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


def patients_words(config: RunConfig) -> str:
    """Return how a patient with several items was scored."""
    if config.task.outlines or config.evaluation.unit == "image":
        return "Each item was scored by itself."
    if config.model.pool is not None:
        return (
            f"A patient's items are one input together ({config.model.pool} over their features), "
            "and one answer."
        )
    return "A patient's items were scored together: the mean of `output`, then the last function."


def modalities(images: Images) -> tuple[str, ...]:
    """Return the modalities that the model was made for, as DICOM names them; empty: any."""
    return images.modalities
