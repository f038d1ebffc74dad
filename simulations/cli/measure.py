"""`measure`, step by step."""

from __future__ import annotations

from pathlib import Path

from client.measurement.forget_measured import PAGE
from client.measurement.measured_page import show
from client.measurement.plan import MeasurePlan
from client.site.cache import Cache
from client.site.terminal import say
from client.site.yaml_part import load_part
from simulations.comparison.measured_hospitals import measure_hospitals, write_measured_hospitals


def run_measuring(source: Path, data: Path, out: Path | None, *, every: bool) -> None:
    """Measure the masks of every hospital; show, and write a folder for each that runs can take."""
    plan = load_part(source, MeasurePlan)
    out = out or Path("runs") / f"{source.stem}-measured"
    # Hidden, so that it is no hospital of the folder.
    found = measure_hospitals(plan, data, Cache(out / ".cache"))
    write_measured_hospitals(found, plan, out)
    for one in found.values():
        show(one, every=every)
    say(f"Written to {out}: a folder for each hospital with its table, and {PAGE}.")
