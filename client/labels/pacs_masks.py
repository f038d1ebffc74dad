"""Masks that `pull` found in the PACS for a table's rows, kept in a file beside the table.

`labels.masks.csv` has a line a row and column: the row's keys, the mask's file below the data
folder, or why there is none. It is written by each pull, names patients, and is the site's own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from client.labels.csv_text import KEYS
from common.platform.durable_files import replace_durably

_COLUMNS = (*KEYS, "column", "file", "why")
Keys = tuple[str, ...]  # of a row, in the order of KEYS; empty texts where it has none


@dataclass(frozen=True, kw_only=True)
class RowMask:
    """What was found for one row and column."""

    keys: Keys
    column: str
    file: str  # below the data folder; empty for none
    why: str  # there is none; empty where there is one


def masks_path(table: Path) -> Path:
    """Return where the masks of a table are kept."""
    return table.with_name(f"{table.stem}.masks.csv")


def keys_of(row: Mapping[str, str]) -> Keys:
    """Return what a row is known by."""
    return tuple(row.get(name, "") for name in KEYS)


def read_masks(table: Path) -> tuple[RowMask, ...]:
    """Return what the last pull found; nothing where there was none."""
    path = masks_path(table)
    if not path.exists():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        return tuple(
            RowMask(keys=keys_of(line), column=line["column"], file=line["file"], why=line["why"])
            for line in csv.DictReader(file)
        )


def write_masks(table: Path, found: Iterable[RowMask]) -> None:
    """Keep what was found in place of what was there."""
    lines = [_COLUMNS, *((*one.keys, one.column, one.file, one.why) for one in found)]
    text = StringIO()
    csv.writer(text).writerows(lines)
    replace_durably(masks_path(table), text.getvalue().encode())


def forget_masks(table: Path, patient: str) -> None:
    """Remove a patient's lines."""
    kept = read_masks(table)
    place = KEYS.index("PatientID")
    left = [one for one in kept if one.keys[place] != patient]
    if len(left) < len(kept):
        write_masks(table, left)


def filled(
    row: Mapping[str, str], found: Mapping[tuple[Keys, str], str], columns: Iterable[str]
) -> dict[str, str]:
    """Return a row with its masks of the PACS; what it says itself stays."""
    keys = keys_of(row)
    return {**row, **{name: row.get(name) or found.get((keys, name), "") for name in columns}}
