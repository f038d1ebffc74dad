"""Outlines of many hospitals, measured: each one's table with a column for each measurement."""

from __future__ import annotations

from pathlib import Path

from client.inference.trained_model import Local, TrainedModel
from client.measurement.measured_page import html_of
from client.measurement.measured_table import write_table
from client.measurement.plan import MeasurePlan
from client.measurement.predicted_outlines import measure_predicted
from client.measurement.site_measurements import SiteMeasurements, measure_site
from client.site.cache import Cache
from client.site.home import MEASURED_PAGE, MEASURED_TABLE
from common.platform.durable_files import replace_durably
from simulations.comparison.cohorts import given_folders

#: By a hospital's folder: what was measured there.
MeasuredHospitals = dict[Path, SiteMeasurements]


def measure_hospitals(
    asked: MeasurePlan | TrainedModel, data: Path, cache: Cache
) -> MeasuredHospitals:
    """Measure masks, or what a model outlines, of one hospital or of a folder with several."""
    alone = (data / MEASURED_TABLE).is_file()
    with cache.in_use():
        return {
            folder: measure_site(folder, asked, cache)
            if isinstance(asked, MeasurePlan)
            else measure_predicted(folder, asked, Local(explain=False), cache.index)
            for folder in ((data,) if alone else given_folders(data))
        }


def write_measured_hospitals(found: MeasuredHospitals, plan: MeasurePlan, out: Path) -> None:
    """Write a folder for each hospital that runs can take, and a page to read."""
    for folder, one in found.items():
        place = out / folder.absolute().name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_table(one, plan, place / MEASURED_TABLE, folder / MEASURED_TABLE)
    page = html_of(list(found.values()), plan)
    replace_durably(out / MEASURED_PAGE, page.encode(), mode=0o600)
