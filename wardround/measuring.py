"""Outlines that people drew, measured: volumes, shapes, grey values, ejection fractions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from client.inference.trained_model import TrainedModel
from client.measurement.measured_table import measured_columns, values_of
from client.measurement.plan import MeasurePlan
from client.measurement.predicted_outlines import plan_of
from client.measurement.site_measurements import SiteMeasurements
from client.site.cache import Cache
from client.site.yaml_part import load_part
from simulations.comparison.measured_hospitals import measure_hospitals, write_measured_hospitals
from wardround.showing import as_html, as_text, frame, table_of_rows

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, repr=False)
class Measurements:
    """What was measured at hospitals. It names patients: keep it where the data may be."""

    plan: MeasurePlan
    sites: Mapping[Path, SiteMeasurements]  # by the hospital's folder

    def frame(self) -> pd.DataFrame:
        """Return a row for each row of the tables of which anything was measured.

        Columns: site, patient, and one for each measurement, as in the tables that are written;
        NaN where there is no value.
        """
        columns = ("site", "patient", *measured_columns(self.plan))
        rows = [
            {"site": one.name, "patient": row.patient, **dict(values_of(row))}
            for one in self.sites.values()
            for row in one.rows
        ]
        return frame(columns, rows)

    def not_measured(self) -> pd.DataFrame:
        """Return what was not measured, and what was and is worth a look.

        Columns: site, reason (its code), what, detail, meaning (in words, with the remedy).
        """
        columns = ("site", "reason", "what", "detail", "meaning")
        rows = [
            dict(
                zip(
                    columns,
                    (one.name, u.reason.name, u.what, u.detail, u.reason.value),
                    strict=True,
                )
            )
            for one in self.sites.values()
            for u in one.unusable
        ]
        return frame(columns, rows)

    def write(self, folder: str | PathLike[str]) -> Path:
        """Write each hospital's table with the measurements as columns, for `cohorts(data=...)`."""
        write_measured_hospitals(dict(self.sites), self.plan, Path(folder))
        return Path(folder)

    def _table(self) -> Table:
        rows = [
            (one.name, str(len(one.rows)), str(len(one.labels.rows)), str(len(one.left_out)))
            for one in self.sites.values()
        ]
        head = ("", "measured", "rows of the table", "left out")
        return table_of_rows("Measurements. For research, not for clinical use.", head, rows)

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())


def measure(
    plan: str | PathLike[str] | MeasurePlan | TrainedModel,
    data: str | PathLike[str],
    folder: str | PathLike[str] | None = None,
) -> Measurements:
    """Measure the outlines that hospitals' tables name, as `wardround-simulate measure` does.

    plan: a MEASURE.yaml, or what one holds; or a model of `open_bundle`, whose own outlines are
        measured then.
    data: a hospital's folder, or one with a folder for each hospital.
    folder: where decoded images are kept for the next time; by default nowhere.

    Raises ConfigurationError where the plan cannot be read or does not fit, and CohortError where a
    folder or table is missing or cannot be read.
    """
    asked = load_part(Path(plan), MeasurePlan) if isinstance(plan, str | PathLike) else plan
    wanted = asked if isinstance(asked, MeasurePlan) else plan_of(asked)
    if folder is not None:
        found = measure_hospitals(asked, Path(data), Cache(Path(folder)))
        return Measurements(plan=wanted, sites=found)
    with tempfile.TemporaryDirectory(prefix="wardround-measure-") as kept:
        found = measure_hospitals(asked, Path(data), Cache(Path(kept)))
    return Measurements(plan=wanted, sites=found)
