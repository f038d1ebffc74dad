"""JSON Schema of the configuration, for editors."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaValue

from common.config.run_config import RunConfig

#: First line of every YAML that ships, with the way from its folder to configs/schema.json.
HEADER = "# yaml-language-server: $schema="


def schema_text() -> str:
    """Return the schema of RunConfig as JSON text, the same for the same code."""
    schema = RunConfig.model_json_schema()
    parts = {part.__name__: part for part in _parts(RunConfig)}
    _explain(schema, RunConfig)
    for name, definition in schema["$defs"].items():
        _explain(definition, parts[name])
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**dialect, **schema}, indent=1, sort_keys=True) + "\n"


def write_schema(path: Path) -> None:
    """Write the schema, e.g. to configs/schema.json."""
    path.write_text(schema_text(), encoding="utf-8")


def _explain(definition: JsonSchemaValue, part: type[BaseModel]) -> None:
    """Put each field's comment beside it."""
    for name, comment in _comments(inspect.getsource(part)):
        written = part.model_fields[name].alias or name
        definition["properties"][written]["description"] = comment


def _comments(source: str) -> Iterator[tuple[str, str]]:
    """Yield (field, comment) for every field that has `#:` lines above it."""
    for lines, field in re.findall(r"((?:^ +#: .*\n)+) +(\w+):", source, re.MULTILINE):
        yield field, " ".join(line.strip().removeprefix("#: ") for line in lines.splitlines())


def _parts(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _parts(field.annotation)
    else:
        for member in get_args(annotation):
            yield from _parts(member)
