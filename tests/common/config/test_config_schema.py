from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from common.config.run_config import load_config, parse_config
from common.config.schema import HEADER, schema_text
from common.config.yaml import read_yaml

IMAGES = """
name: example
task: {kind: diagnosis, target: malignant}
cohort: {images: {size: [64, 64]}, table: {numbers: [{column: age}]}}
model: {network: small_cnn}
training: {rounds: 3}
privacy: none
"""
PRIVATE = IMAGES.replace("privacy: none", "privacy: {unit: patient, epsilon: 3}")
SURVIVAL = """
name: example
task: {kind: prognosis, time: days, intervals: [30, 60]}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 3}
privacy: none
"""

LOSS_OF_OTHERS = IMAGES.replace("rounds: 3", "rounds: 3, loss: acme-parts/focal")
TASK_OF_OTHERS = IMAGES.replace(
    "{kind: diagnosis, target: malignant}",
    "{kind: extension, name: acme-parts/stages, columns: [size, {column: side, values: [l, r]}], "
    "classes: [small, large]}",
)
SCHEMA = Path(__file__).parents[3] / "configs" / "schema.json"


def test_the_committed_schema_is_current() -> None:
    current = SCHEMA.read_text(encoding="utf-8") == schema_text()
    assert current, "write it anew: common.config.schema.write_schema(Path('configs/schema.json'))"


def test_the_schema_accepts_what_the_program_accepts() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    for text in (IMAGES, PRIVATE, SURVIVAL, LOSS_OF_OTHERS, TASK_OF_OTHERS):
        for content in (read_yaml(text), json.loads(parse_config(text).canonical_json())):
            assert not list(validator.iter_errors(content))


def test_the_schema_refuses_an_unknown_key_and_a_missing_privacy() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    assert not validator.is_valid(read_yaml(IMAGES.replace("rounds: 3", "rounds: 3, x: 1")))
    assert not validator.is_valid(read_yaml(IMAGES.replace("privacy: none", "")))


def test_the_schema_explains_fields_in_the_comments_words() -> None:
    definitions = json.loads(schema_text())["$defs"]
    training = definitions["Training"]["properties"]
    assert (
        training["images_per_patient"]["description"] == "Most images of one patient in one step."
    )
    target = definitions["DiagnosisTask"]["properties"]["classes"]["description"]
    assert target.startswith("Multiclass: the values of the target column, in order. Ordinal: its")
    assert target.endswith("by default 0 and 1.")


def test_every_configuration_that_ships_is_valid_and_names_the_schema() -> None:
    for path in (SCHEMA.parent).rglob("*.yaml"):
        load_config(path)
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith(HEADER), path
        assert (path.parent / first.removeprefix(HEADER)).resolve() == SCHEMA, path
