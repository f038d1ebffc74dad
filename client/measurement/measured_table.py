"""Measurements as a table of labels: the site's own rows, with a column for each that was measured.

A run takes the columns like any others (cohort.table). They are the same at every site that
measures the same, and a cell is empty where there is no value: what lacks one is a missing value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.labels.cell_text import text_of
from client.labels.schema import schema_path
from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import MeasuredRow, SiteMeasurements
from client.radiomics.feature import INTENSITIES, Feature
from common.platform.durable_files import replace_durably
from common.platform.errors import CohortError, ConfigurationError

#: Digits of a number; more say nothing of a patient.
_DIGITS = 8
FRACTION = "ejection_fraction_percent"


def column_of(mask: str, structure: str, feature: str) -> str:
    """Return what a column is called: mask, structure, feature."""
    return "_".join(part for part in (mask, structure, feature) if part)


def features_of(plan: MeasurePlan) -> tuple[Feature, ...]:
    """Return what is measured of each structure."""
    return tuple(one for one in Feature if plan.intensities or one not in INTENSITIES)


def measured_columns(plan: MeasurePlan) -> tuple[str, ...]:
    """Return the columns of measurements, in their order."""
    fractions = () if plan.ejection_fraction is None else plan.ejection_fraction.structures
    return tuple(
        column_of(mask, structure, feature.column)
        for mask in plan.columns
        for structure in plan.structures
        for feature in features_of(plan)
    ) + tuple(column_of("", structure, FRACTION) for structure in fractions)


def values_of(row: MeasuredRow) -> Iterator[tuple[str, float]]:
    """Yield what was measured of a row, by column."""
    for mask in row.masks:
        for one in mask.structures:
            for feature, value in one.features.items():
                yield column_of(mask.name, one.name, feature.column), value
    for structure, value in row.fractions.items():
        yield column_of("", structure, FRACTION), value


def table_text(found: SiteMeasurements, plan: MeasurePlan) -> str:
    """Return the site's table with the measurements, as CSV.

    CohortError where the table has a column of such a name already.
    """
    held = list(found.labels.rows[0]) if found.labels.rows else []
    columns = measured_columns(plan)
    twice = sorted(set(held) & set(columns))
    if twice:
        message = (
            f"The table has a column {twice[0]} already. Measure from the table without it "
            "(--labels FILE), or give the structures other names in MEASURE.yaml."
        )
        raise CohortError(message)
    text = io.StringIO(newline="")
    # Cells keep the sign by which numbers of theirs are read.
    sign = found.labels.sign if found.labels.sign in {";", "\t", "|"} else ","
    writer = csv.writer(text, delimiter=sign, lineterminator="\n")
    writer.writerow([*held, *columns])
    measured = {row.row: dict(values_of(row)) for row in found.rows}
    for place, row in enumerate(found.labels.rows):
        values = measured.get(place, {})
        writer.writerow([*row.values(), *_cells(columns, values)])
    return text.getvalue()


def check_target(path: Path, source: Path) -> None:
    """Refuse to write a table over the one that is measured from; ConfigurationError."""
    if path.resolve() == source.resolve():
        message = (
            f"{path} is the table that is measured from. Give the table without measurements "
            "(--labels FILE), or write the new one elsewhere (--out FOLDER)."
        )
        raise ConfigurationError(message)


def write_table(found: SiteMeasurements, plan: MeasurePlan, path: Path, source: Path) -> Path:
    """Write the table to a path, and beside it the schema of the table that it is made from."""
    check_target(path, source)
    text = table_text(found, plan)
    declared = schema_path(source)
    if declared.is_file():
        replace_durably(schema_path(path), declared.read_bytes(), mode=0o600)
    replace_durably(path, text.encode(), mode=0o600)
    return path


def _cells(columns: Sequence[str], values: dict[str, float]) -> list[str]:
    # Rounded as a number: 1e-05 is written as such, and read as such.
    return [text_of(float(f"{values[c]:.{_DIGITS}g}")) if c in values else "" for c in columns]
