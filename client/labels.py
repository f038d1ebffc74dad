"""labels.csv: one row a patient, study, series or image, found by the most specific key."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.dicom.reasons import Reason, Unusable
from common.errors import CohortError

#: DICOM keys of a row, most specific first.
KEYS = ("SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The rows of a site's table, by key."""

    rows: tuple[Row, ...]
    index: Mapping[tuple[str, str], int]  # (key column, value) -> row
    unusable: tuple[Unusable, ...]

    def find(self, keys: Mapping[str, str]) -> int | None:
        """Return the row for an image, by the most specific key that the table has for it."""
        for column in KEYS:
            place = self.index.get((column, keys.get(column, "")))
            if place is not None:
                return place
        return None


def read_labels(path: Path, needed: Sequence[str]) -> Labels:
    """Read a table; CohortError names the file and what it lacks."""
    rows = list(_rows(path, needed))
    index: dict[tuple[str, str], int] = {}
    unusable: list[Unusable] = []
    for place, row in enumerate(rows):
        key = _key(row)
        if key is None or not row.get("PatientID", "").strip():
            unusable.append(Unusable(reason=Reason.NO_KEY, what=f"row {place + 2}"))
            continue
        other = index.setdefault(key, place)
        if other != place and any(row[c] != rows[other][c] for c in needed):
            unusable.append(Unusable(
                reason=Reason.LABEL_CONFLICT, what=row["PatientID"],
                detail=f"rows {other + 2} and {place + 2}",
            ))  # fmt: skip
    for problem in unusable:
        if problem.reason is Reason.LABEL_CONFLICT:
            index = {k: i for k, i in index.items() if rows[i]["PatientID"] != problem.what}
    return Labels(rows=tuple(rows), index=index, unusable=tuple(unusable))


def _key(row: Row) -> tuple[str, str] | None:
    return next(((c, row[c].strip()) for c in KEYS if row.get(c, "").strip()), None)


def _rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    if not path.is_file():
        message = f"There is no {path}. Each site is a folder with DICOM files and a labels.csv."
        raise CohortError(message)
    try:
        # utf-8-sig: spreadsheets write a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"Cannot read {path}: {error}. Save it as UTF-8 CSV."
        raise CohortError(message) from error
    lines = text.splitlines()
    if not lines:
        message = f"{path} is empty. Its first line names the columns, PatientID among them."
        raise CohortError(message)
    # European spreadsheets part cells by semicolons.
    separator = ";" if lines[0].count(";") > lines[0].count(",") else ","
    table = csv.DictReader(lines, delimiter=separator)
    columns = [str(c).strip() for c in table.fieldnames or []]
    table.fieldnames = columns
    for name in ("PatientID", *needed):
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" It has {', '.join(columns[:12])}."
            message = f"{path} has no column {name}.{hint}"
            raise CohortError(message)
    for row in table:
        yield {c: (row.get(c) or "").strip() for c in columns}
