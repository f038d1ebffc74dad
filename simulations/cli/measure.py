"""`measure`, step by step."""

from __future__ import annotations

from pathlib import Path

from client.measurement.forget_measured import PAGE, TABLE
from client.measurement.measured_page import html_of, show
from client.measurement.measured_table import write_table
from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import SiteMeasurements, measure_site
from client.site.cache import Cache
from client.site.terminal import say
from client.site.yaml_part import load_part
from common.platform.durable_files import replace_durably
from simulations.comparison.cohorts import given_folders


def run_measuring(
    source: Path, data: Path, out: Path | None, *, every: bool
) -> tuple[SiteMeasurements, ...]:
    """Measure the masks of every hospital; write a folder for each that runs can take."""
    plan = load_part(source, MeasurePlan)
    out = out or Path("runs") / f"{source.stem}-measured"
    alone = (data / "labels.csv").is_file()
    found = []
    for folder in (data,) if alone else given_folders(data):
        cache = Cache(out / ".cache")
        with cache.in_use():
            one = measure_site(folder, plan, cache)
        place = out / folder.absolute().name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_table(one, plan, place / TABLE, folder / "labels.csv")
        show(one, every=every)
        found.append(one)
    replace_durably(out / PAGE, html_of(found, plan).encode(), mode=0o600)
    say(f"Written to {out}: a folder for each hospital with its table, and {PAGE}.")
    return tuple(found)
