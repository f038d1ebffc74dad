"""Statistics of a cohort that a site may send: tables of counts with public rows.

Every row that can be told is fixed by the run's configuration or by this file, so a table holds
no value of a DICOM header or of labels.csv; bin edges are constants, never taken from patients.

    a count of fewer patients than `smallest`      None: held back
    a count that others would give away            None, too
    (client/cohort_statistics/released_counts.py) with `noise`
    each patient in one row of a table at most,
                                                   every row told, noised and charged
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from common.config.parts.ranges import UNKNOWN, bins
from common.config.run_config import RunConfig

Unit = Literal["patients", "studies"]
#: Rows of tables; a row that is left empty is told as 0.
Layout = Mapping[str, tuple[str, ...]]

OTHER = "other"
#: PS3.3 C.7.3.1.1.1, those that hold images and are met in hospitals.
MODALITIES = (
    "CR",
    "CT",
    "DX",
    "ES",
    "GM",
    "IO",
    "IVUS",
    "MG",
    "MR",
    "NM",
    "OCT",
    "OP",
    "OT",
    "PT",
    "PX",
    "RF",
    "RG",
    "SC",
    "SM",
    "US",
    "XA",
    "XC",
)
#: Years.
AGES = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
#: Millimetres between pixels, and between slices.
SPACINGS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
#: Mean of an image in the units that its header makes of stored values (CT: Hounsfield).
INTENSITIES = (
    -math.inf,
    -1000.0,
    -750.0,
    -500.0,
    -250.0,
    -100.0,
    -50.0,
    0.0,
    50.0,
    100.0,
    150.0,
    200.0,
    255.0,
    500.0,
    1000.0,
    2000.0,
    4000.0,
    8000.0,
    16000.0,
    32000.0,
)
#: Of volumes that are trained on by patches: axes as a network sees them.
AXES = ("slice", "row", "column")
#: Millimetres between voxels along an axis: 12 ranges, each 1.34 times the one before.
AXIS_SPACINGS = tuple(round(0.3 * (10 / 0.3) ** (place / 12), 3) for place in range(13))
#: Millimetres from one end of a volume to the other: 10 ranges, each 1.52 times the one before.
AXIS_EXTENTS = tuple(round(10 * 64 ** (place / 10), 1) for place in range(11))
#: Share of a volume that lies in any structure: 6 ranges, the last of them open.
FOREGROUND_SHARES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)
FOREGROUND = "share in structures"
#: Reason codes, which both sides know by name only.
REASON_PATTERN = r"^[A-Z][A-Z0-9_]{1,39}$"
#: The one table whose rows are reason codes.
LEFT_OUT = "left out"
#: Begins the name of the table of a rule for series.
SERIES = "series "


@dataclass(frozen=True, kw_only=True)
class StatisticsTable:
    """Counts by row."""

    unit: Unit
    rows: Mapping[str, float | None]  # None: held back; whole numbers unless noised


@dataclass(frozen=True, kw_only=True)
class CohortStatistics:
    """All tables of one site."""

    smallest: int  # no count of fewer patients than this is told
    noise: float  # standard deviation of the Gaussian noise on every count, in patients; 0: none
    tables: Mapping[str, StatisticsTable]


@dataclass(frozen=True, kw_only=True)
class MergedRow:
    """One row over several sites."""

    told: float  # sum of what sites told
    held_back_by: tuple[str, ...]  # sites that told nothing of this row: each more than none


@dataclass(frozen=True, kw_only=True)
class MergedTable:
    """One table over the sites that have it."""

    unit: Unit
    rows: Mapping[str, MergedRow]
    sites: tuple[str, ...]  # whose counts are in it


def layout_of(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Return the rows of every table that a site may send for a run.

    `left out` has none: its rows are reason codes (REASON_PATTERN).
    """
    found: dict[str, tuple[str, ...]] = {
        "studies": ("found", "used", "left out"),
        "patients": ("found", "used", "left out"),
        LEFT_OUT: (),
        "split": ("train", "validation", "test"),
    }
    found |= config.task.outcome_tables
    images = config.cohort.images
    if images is not None:
        fared = ("matched", "ambiguous", "missing")
        found |= {f"{SERIES}{rule.name}": fared for rule in images.series}
    if images is not None and config.cohort.in_dicom:
        found |= {
            "modality": (*MODALITIES, OTHER, UNKNOWN),
            "age (years)": bins(AGES),
            "pixel spacing (mm)": bins(SPACINGS),
            "mean intensity": bins(INTENSITIES),
        }
        if images.dimensions == 3:
            found["slice distance (mm)"] = bins(SPACINGS)
        if images.dimensions == 3 and images.patch is not None:
            found |= {spacing_table(axis): bins(AXIS_SPACINGS) for axis in AXES}
            found |= {extent_table(axis): bins(AXIS_EXTENTS) for axis in AXES}
            found[FOREGROUND] = bins(FOREGROUND_SHARES)
    return found


def spacing_table(axis: str) -> str:
    """Return the name of the table of distances between voxels along an axis."""
    return f"{axis} spacing (mm)"


def extent_table(axis: str) -> str:
    """Return the name of the table of volumes' extents along an axis."""
    return f"{axis} extent (mm)"


def merge_cohorts(parts: Mapping[str, CohortStatistics]) -> dict[str, MergedTable]:
    """Add the sites' tables, in the order of the first site that has each; exact, in any order.

    Sums of whole counts are exact in float64. Tables of one name whose unit differs (a site that
    noises counts patients) stay apart, the rarer under `NAME, by patients`.
    """
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    units: dict[str, Unit] = {}
    for site in sorted(parts):
        for name, table in parts[site].tables.items():
            key = (
                name
                if units.setdefault(name, table.unit) == table.unit
                else (f"{name}, by {table.unit}")
            )
            units[key] = table.unit
            found.setdefault(key, {})[site] = dict(table.rows)
    return {
        name: MergedTable(
            unit=units[name], rows=_merged_rows(by_site), sites=tuple(sorted(by_site))
        )
        for name, by_site in found.items()
    }


def _merged_rows(by_site: Mapping[str, Mapping[str, float | None]]) -> dict[str, MergedRow]:
    names = dict.fromkeys(name for rows in by_site.values() for name in rows)
    return {
        name: MergedRow(
            told=math.fsum(_known(rows.get(name) for rows in by_site.values())),
            held_back_by=tuple(
                site for site, rows in by_site.items() if name in rows and rows[name] is None
            ),
        )
        for name in names
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
