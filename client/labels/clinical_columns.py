"""Clinical columns as numbers, scaled by public constants, missing values marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from client.dicom.reasons import Reason, Unusable
from client.labels.label_table import Labels
from client.labels.schema import MISSING
from client.labels.units import factor
from common.config.run_config import NumberColumn, Table
from common.data.cell_values import expected_one_of, number_of, one_of
from common.platform.errors import CohortError


def encode_rows(labels: Labels, rows: Sequence[int], table: Table) -> tuple[Tensor, list[Unusable]]:
    """Return (rows, Table.width): numbers, categories, then missing indicators; and odd values.

    CohortError where a number's declared unit is none that converts to the run's.
    """
    problems: list[Unusable] = []
    factors = {number.column: _factor(labels, number) for number in table.numbers}
    encoded = {row: _encode(labels, row, table, factors, problems) for row in sorted(set(rows))}
    found = torch.tensor([encoded[row] for row in rows], dtype=torch.float32)
    return found.reshape(len(rows), table.width), problems


def _factor(labels: Labels, number: NumberColumn) -> float:
    """Return by what the site's numbers are multiplied to be in the run's unit."""
    rules = labels.schema.columns.get(number.column)
    if rules is None or rules.unit is None or number.unit is None:
        return 1.0
    found = factor(rules.unit, number.unit)
    if found is None:
        message = (
            f"The run takes {number.column} in {number.unit}; the table's schema declares "
            f"{rules.unit}, and no plain factor lies between them. Add a column in {number.unit}, "
            "or correct the schema."
        )
        raise CohortError(message)
    return found


def _encode(
    labels: Labels, row: int, table: Table, factors: Mapping[str, float], problems: list[Unusable]
) -> list[float]:
    values: list[float] = []
    missing: list[float] = []
    for number in table.numbers:
        text = labels.rows[row][number.column]
        value = None if text.lower() in MISSING else _scaled(text, number, factors[number.column])
        if value is None and text.lower() not in MISSING:
            wanted = "a number such as 12.5"
            wanted += ", above -1 for its logarithm" if number.transform == "log" else ""
            problems.append(_odd(labels, row, number.column, text, wanted))
        values.append(0.0 if value is None else value)
        missing.append(float(value is None))
    for category in table.categories:
        text = labels.rows[row][category.column]
        found = one_of(text, category.values)
        if found is None and text.lower() not in MISSING:
            wanted = expected_one_of(text, category.values)
            problems.append(_odd(labels, row, category.column, text, wanted))
        values += [float(found == value) for value in category.values]
        missing.append(float(found is None))
    return values + missing


def _scaled(text: str, column: NumberColumn, multiplied: float) -> float | None:
    """Return the number on its public scale, or None for what is no finite number."""
    value = number_of(text)
    if value is None:
        return None
    value *= multiplied
    if column.transform == "log":
        value = math.log1p(value) if value > -1 else math.nan
    scaled = (value - column.center) / column.scale
    # What is finite here may be infinite to a network.
    return scaled if abs(scaled) <= torch.finfo(torch.float32).max else None


def _odd(labels: Labels, row: int, column: str, text: str, expected: str) -> Unusable:
    return Unusable(
        reason=Reason.VALUE_UNUSABLE,
        what=f"line {labels.lines[row]}",
        detail=f"column {column} holds {text[:40]!r}, expected {expected}",
    )
