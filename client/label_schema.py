"""What the columns of a site's table mean: declared in a YAML beside it, checked cell by cell.

`labels.schema.yaml` beside `labels.csv` (or `outcomes.schema.yaml` beside `outcomes.xlsx`):

    sheet: Outcomes            # of a spreadsheet; without it, its first
    columns:
      age: {type: number, unit: years, range: [0, 120], missing: ["-9"]}
      stage: {type: category, values: [I, II, III]}
      crp: {type: number, unit: mg/L, dated: crp_taken, before: death_date}

A value that is not as declared counts as missing and is listed; one that was taken (`dated`)
after the event that it must come before (`before`) counts as missing, too: it would tell the
outcome. A table without a schema is read as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from client.dicom.reasons import Reason, Unusable
from client.yaml_part import load_part
from common.config_part import Part, Real
from common.errors import ConfigurationError

#: What people write where there is no value.
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-", "?", "."})


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_Text = Annotated[str, BeforeValidator(_as_text)]


class ColumnRules(Part):
    """What a column of the table holds."""

    type: Literal["number", "category", "date", "text", "identifier"]
    #: Of a number (UCUM, such as mg/L or a; years and months are understood as well).
    unit: str | None = None
    #: Of a category: all that may stand there.
    values: tuple[_Text, ...] = ()
    #: Of a number: the least and the greatest that can be true.
    range: tuple[Real, Real] | None = None
    #: Codes for a value that is missing, such as -9 or 999.
    missing: tuple[_Text, ...] = ()
    #: Column with the date on which this value was taken.
    dated: str | None = None
    #: Column with the date of the event that the value must come before.
    before: str | None = None
    #: Of a column with masks: a NIfTI on another grid is resampled; without it, it is refused.
    resample: Literal["nearest"] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        only = {"unit": "number", "range": "number", "values": "category", "resample": "text"}
        for name, kind in only.items():
            if getattr(self, name) and self.type != kind:
                message = f"{name} is for type: {kind}, and this is type: {self.type}"
                raise ValueError(message)
        if self.type == "category" and not self.values:
            message = "type: category needs values: [...]"
            raise ValueError(message)
        if self.range is not None and self.range[0] >= self.range[1]:
            message = f"range={list(self.range)} must be [low, high] with low < high"
            raise ValueError(message)
        if (self.dated is None) != (self.before is None):
            message = "dated and before belong together; give both or neither"
            raise ValueError(message)
        return self


class LabelSchema(Part):
    """What a table's columns hold."""

    sheet: str | None = None
    columns: Mapping[str, ColumnRules] = {}


def schema_path(table: Path) -> Path:
    """Return where the schema of a table lies, if it has one."""
    return table.with_name(f"{table.stem}.schema.yaml")


def read_schema(table: Path) -> LabelSchema:
    """Return the schema beside a table; an empty one where there is none."""
    path = schema_path(table)
    return load_part(path, LabelSchema) if path.exists() else LabelSchema()


def check_columns(schema: LabelSchema, table: Path, columns: Sequence[str]) -> None:
    """Refuse a schema that names a column which the table does not have."""
    rules = schema.columns
    named = [*rules, *(c for r in rules.values() for c in (r.dated, r.before) if c is not None)]
    unknown = next((name for name in named if name not in columns), None)
    if unknown is not None:
        message = (
            f"{schema_path(table)} names the column {unknown}, which {table.name} does not have. "
            f"It has {', '.join(columns[:12])}."
        )
        raise ConfigurationError(message)


def checked(
    row: dict[str, str], schema: LabelSchema, line: int
) -> tuple[dict[str, str], list[Unusable]]:
    """Return a row without what is not as declared, and a list of that."""
    kept = dict(row)
    problems: list[Unusable] = []
    for column, rules in schema.columns.items():
        text = row[column]
        if text in rules.missing:
            kept[column] = ""
        elif text.lower() not in MISSING and (expected := _misfit(text, rules)):
            kept[column] = ""
            problems.append(Unusable(
                reason=Reason.VALUE_UNUSABLE, what=f"line {line}",
                detail=f"column {column} holds {text[:40]!r}, expected {expected}",
            ))  # fmt: skip
    for column, rules in schema.columns.items():
        detail = _late(row, kept[column], rules)
        if detail is not None:
            kept[column] = ""
            problems.append(Unusable(
                reason=Reason.LABEL_AFTER_OUTCOME, what=f"line {line}",
                detail=f"column {column}: {detail}",
            ))  # fmt: skip
    return kept, problems


def _misfit(text: str, rules: ColumnRules) -> str:
    """Return what was expected in place of a text; nothing where it fits."""
    match rules.type:
        case "number":
            value = number_in(text)
            low, high = rules.range or (-math.inf, math.inf)
            if value is not None and low <= value <= high:
                return ""
            unit = f" {rules.unit}" if rules.unit else ""
            return f"{low:g} to {high:g}{unit}" if rules.range else "a number such as 12.5"
        case "category":
            return "" if text in rules.values else f"one of {', '.join(rules.values)}"
        case "date":
            return "" if date_in(text) else "a date such as 2024-03-01"
        case "text" | "identifier":
            return ""


def number_in(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        # float() reads 1_000 as a thousand; a table means something else by it.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def date_in(text: str) -> date | None:
    """Return the day of a date (2024-03-01 or DICOM's 20240301), with or without a time."""
    try:
        if re.fullmatch(r"\d{8}", text):
            return date(int(text[:4]), int(text[4:6]), int(text[6:]))
        return datetime.fromisoformat(text).date()
    except ValueError:
        return None


def _late(row: Mapping[str, str], text: str, rules: ColumnRules) -> str | None:
    """Return how a value comes after the event that it must come before, or None."""
    if rules.dated is None or rules.before is None or text.lower() in MISSING:
        return None
    taken, event = date_in(row[rules.dated]), date_in(row[rules.before])
    if taken is None or event is None or taken <= event:
        return None
    return f"{rules.dated} is {taken}, {rules.before} is {event}"
