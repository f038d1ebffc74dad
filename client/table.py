"""Clinical columns as numbers, scaled by public constants, and what is missing marked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from client.dicom.reasons import Reason, Unusable
from client.labels import Labels
from common.config import NumberColumn, Table

#: What people write where there is no value.
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-", "?", "."})


def encode_rows(
    labels: Labels, rows: Sequence[int], table: Table
) -> tuple[Tensor, list[Unusable]]:
    """Return (rows, Table.width): numbers, categories, then missing indicators; and odd values."""
    problems: list[Unusable] = []
    encoded = {row: _encode(labels, row, table, problems) for row in sorted(set(rows))}
    found = torch.tensor([encoded[row] for row in rows], dtype=torch.float32)
    return found.reshape(len(rows), table.width), problems


def _encode(labels: Labels, row: int, table: Table, problems: list[Unusable]) -> list[float]:
    values: list[float] = []
    missing: list[float] = []
    for number in table.numbers:
        text = labels.rows[row][number.column]
        value = None if text.lower() in _MISSING else _scaled(text, number)
        if value is None and text.lower() not in _MISSING:
            wanted = "a number such as 12.5"
            wanted += ", above -1 for its logarithm" if number.transform == "log" else ""
            problems.append(_odd(labels, row, number.column, text, wanted))
        values.append(0.0 if value is None else value)
        missing.append(float(value is None))
    for category in table.categories:
        text = labels.rows[row][category.column]
        if text not in category.values and text.lower() not in _MISSING:
            one_of = f"one of {', '.join(category.values)}"
            problems.append(_odd(labels, row, category.column, text, one_of))
        values += [float(text == value) for value in category.values]
        missing.append(float(text not in category.values))
    return values + missing


def _scaled(text: str, column: NumberColumn) -> float | None:
    """Return the number on its public scale, or None for what is no finite number."""
    try:
        # float() reads 1_000 as a thousand; a table means something else by it.
        value = math.nan if "_" in text else float(text)
        if column.transform == "log":
            value = math.log1p(value) if value > -1 else math.nan
    except ValueError:
        return None
    scaled = (value - column.center) / column.scale
    return scaled if math.isfinite(scaled) else None


def _odd(labels: Labels, row: int, column: str, text: str, expected: str) -> Unusable:
    return Unusable(
        reason=Reason.VALUE_UNUSABLE, what=f"line {labels.lines[row]}",
        detail=f"column {column} holds {text[:40]!r}, expected {expected}",
    )  # fmt: skip
