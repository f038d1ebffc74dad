"""Schema of a site's table: a YAML beside it, checked cell by cell.

`labels.schema.yaml` beside `labels.csv` (or `outcomes.schema.yaml` beside `outcomes.xlsx`):

    sheet: Outcomes            # of a spreadsheet; without it, its first
    decimal: comma             # or point; needed where 1,234 may be 1.234 or 1234
    columns:
      age: {type: number, unit: years, range: [0, 120], missing: ["-9"]}
      stage: {type: category, values: [I, II, III]}
      status: {type: category, codes: {1: 0, 2: 1}}     # what 1 and 2 mean, as R writes them
      crp: {type: number, unit: mg/L, dated: crp_taken, before: death_date}

A value that is not as declared counts as missing and is listed; one that was taken (`dated`)
after the event that it must come before (`before`), or on a day that cannot be read, counts as
missing, too: it might tell the outcome. A table without a schema is read as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from client.dicom.reasons import Reason, Unusable
from client.site.yaml_part import load_part
from common.config.parts.section import Part, Real
from common.data.cell_values import Notation, expected_one_of, is_either, number_of, one_of
from common.platform.errors import ConfigurationError

#: What people write where there is no value.
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-", "?", "."})


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_Text = Annotated[str, BeforeValidator(_as_text)]


#: DICOM objects in which outlines are kept, by their modality.
MASK_TYPES = frozenset({"SEG", "RTSTRUCT"})


class ColumnRules(Part):
    """What a column of the table holds."""

    type: Literal["number", "category", "date", "text", "identifier", "SEG", "RTSTRUCT"]
    #: Of a number (UCUM, such as mg/L or a; years and months are understood as well).
    unit: str | None = None
    #: Of a category: all that may stand there.
    values: tuple[_Text, ...] = ()
    #: Of a category: what each code of the table means, such as {1: 0, 2: 1}.
    codes: Mapping[_Text, _Text] = {}
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
    #: Of a column with masks that `pull` finds in the PACS, of type SEG or RTSTRUCT.
    source: Literal["pacs"] | None = Field(default=None, alias="from")
    #: Of those: the segment's label or the region's name, where a mask has several.
    label: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        only = {"unit": "number", "range": "number", "values": "category", "codes": "category"}
        only["resample"] = "text"
        if (self.source is not None) != (self.type in MASK_TYPES):
            message = "from: pacs belongs to type: SEG and type: RTSTRUCT; give both or neither"
            raise ValueError(message)
        if self.label is not None and self.source is None:
            message = "label is for masks with from: pacs"
            raise ValueError(message)
        for name, kind in only.items():
            if getattr(self, name) and self.type != kind:
                message = f"{name} is for type: {kind}, and this is type: {self.type}"
                raise ValueError(message)
        if self.type == "category" and not self.values and not self.codes:
            message = "type: category needs values: [...] or codes: {...}"
            raise ValueError(message)
        numbers = [number_of(code) for code in self.codes]
        if len(set(numbers) - {None}) < len(numbers) - numbers.count(None):
            message = f"codes={list(self.codes)} names one number twice"
            raise ValueError(message)
        odd = [m for m in self.codes.values() if self.values and one_of(m, self.values) is None]
        if odd:
            message = f"codes give {odd[0]!r}, which is none of values={list(self.values)}"
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
    #: The decimal sign of its numbers; without it, see common/data/cell_values.py.
    decimal: Literal["comma", "point"] | None = None
    columns: Mapping[str, ColumnRules] = {}

    @property
    def of_pacs(self) -> dict[str, ColumnRules]:
        """Columns whose masks `pull` finds in the PACS; the table need not have them."""
        return {name: rules for name, rules in self.columns.items() if rules.source is not None}


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
    columns = [*columns, *schema.of_pacs]
    named = [*rules, *(c for r in rules.values() for c in (r.dated, r.before) if c is not None)]
    unknown = next((name for name in named if name not in columns), None)
    if unknown is not None:
        message = (
            f"{schema_path(table)} names the column {unknown}, which {table.name} does not have. "
            f"It has {', '.join(columns[:12])}."
        )
        raise ConfigurationError(message)


class CheckedRow(NamedTuple):
    """A row without what is not as declared."""

    row: dict[str, str]
    problems: tuple[Unusable, ...]
    refused: frozenset[str]  # columns whose cell held something that is not used


def checked(
    row: Mapping[str, str],
    schema: LabelSchema,
    line: int,
    notation: Notation,
    numbers: Collection[str] = (),
) -> CheckedRow:
    """Return a row as declared, and a list of what was not; `numbers` are read as numbers, too."""
    kept = dict(row)
    faults: dict[str, tuple[Reason, str]] = {}
    for column, text in row.items():
        rules = schema.columns.get(column)
        number = column in numbers or (rules is not None and rules.type == "number")
        if text.lower() not in MISSING and (rules is not None or number):
            kept[column], fault = _as_declared(text, rules, notation, number=number)
            if fault:
                detail = f"column {column} holds {text[:40]!r}, {fault}"
                faults[column] = Reason.VALUE_UNUSABLE, detail
    for column, rules in schema.columns.items():
        late = _late(row, kept.get(column, ""), rules)
        if late is not None:
            kept[column] = ""
            faults[column] = late[0], f"column {column}: {late[1]}"
    problems = tuple(
        Unusable(reason=reason, what=f"line {line}", detail=detail)
        for reason, detail in faults.values()
    )
    refused = {c for c, (reason, _) in faults.items() if reason is Reason.VALUE_UNUSABLE}
    return CheckedRow(kept, problems, frozenset(refused))


def _as_declared(
    text: str, rules: ColumnRules | None, notation: Notation, *, number: bool
) -> tuple[str, str]:
    """Return a cell's text, and what is wrong with it; a cell with a fault is empty."""
    if rules is not None and _is_missing(text, rules):
        return "", ""
    if rules is not None and rules.codes:
        code = one_of(text, tuple(rules.codes))
        expected = expected_one_of(text, tuple(rules.codes))
        return ("", f"expected {expected}") if code is None else (rules.codes[code], "")
    if number and is_either(text, notation):
        figures = re.split("[.,]", text)
        return "", (
            f"which is {'.'.join(figures)} or {''.join(figures)}: write decimal: comma or "
            "decimal: point into the table's schema"
        )
    plain = text
    if number:
        value = number_of(text, notation)  # with a decimal comma 1.234 is another than Python's
        plain = text if value is None or value == number_in(text) else repr(value)
    expected = _misfit(plain, rules) if rules is not None else ""
    return ("", f"expected {expected}") if expected else (plain, "")


def _is_missing(text: str, rules: ColumnRules) -> bool:
    if rules.type in {"text", "identifier", *MASK_TYPES}:
        return text in rules.missing
    return one_of(text, rules.missing) is not None


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
            found = one_of(text, rules.values)
            return "" if found is not None else expected_one_of(text, rules.values)
        case "date":
            return "" if date_in(text) else "a date such as 2024-03-01"
        case "text" | "identifier" | "SEG" | "RTSTRUCT":
            return ""


def number_in(text: str) -> float | None:
    """Return a finite number that is written as Python writes it, or None."""
    try:
        # float() reads 1_000 as a thousand; a table means something else by it.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def date_in(text: str) -> date | None:
    """Return the day of a date, with or without a time: 2024-03-01, 20240301 or 01.03.2024.

    01/03/2024 is two days, one in Europe and one in the United States, so it is none here.
    """
    try:
        if re.fullmatch(r"\d{8}", text):
            return date(int(text[:4]), int(text[4:6]), int(text[6:]))
        points = re.match(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T]|\Z)", text)
        if points is not None:
            return date(int(points[3]), int(points[2]), int(points[1]))
        return datetime.fromisoformat(text).date()
    except ValueError:
        return None


def _late(row: Mapping[str, str], text: str, rules: ColumnRules) -> tuple[Reason, str] | None:
    """Return how a value comes after the event that it must come before, or may; else None."""
    if rules.dated is None or rules.before is None or text.lower() in MISSING:
        return None
    for column in (rules.dated, rules.before):
        if row[column].lower() not in MISSING and date_in(row[column]) is None:
            detail = f"{column} holds {row[column][:40]!r}, expected a date such as 2024-03-01"
            return Reason.VALUE_UNUSABLE, detail
    taken, event = date_in(row[rules.dated]), date_in(row[rules.before])
    if taken is None or event is None or taken <= event:
        return None
    return Reason.LABEL_AFTER_OUTCOME, f"{rules.dated} is {taken}, {rules.before} is {event}"
