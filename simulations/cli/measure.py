"""`measure`, step by step."""

from __future__ import annotations

from pathlib import Path

from client.measurement.measured_page import show
from client.measurement.plan import MeasurePlan
from client.measurement.predicted_outlines import plan_of
from client.site.cache import Cache
from client.site.home import MEASURED_PAGE
from client.site.terminal import say
from client.site.yaml_part import load_part
from common.platform.errors import CohortError, ConfigurationError
from simulations.comparison.measured_hospitals import measure_hospitals, write_measured_hospitals
from simulations.comparison.model_measured import opened


def run_measuring(
    source: Path | None, bundle: Path | None, data: Path, out: Path | None, *, every: bool
) -> None:
    """Measure every hospital; show it, and write a folder for each that runs can take."""
    if (source is None) == (bundle is None):
        message = "Give one of these: a MEASURE.yaml, or --bundle FOLDER for a model's outlines."
        raise ConfigurationError(message)
    asked = opened(bundle) if bundle is not None else load_part(source or Path(), MeasurePlan)
    plan = asked if isinstance(asked, MeasurePlan) else plan_of(asked)
    name = source.stem if source is not None else "outlines"
    out = out or Path("runs") / f"{name}-measured"
    # Hidden, so that it is no hospital of the folder.
    found = measure_hospitals(asked, data, Cache(out / ".cache"))
    for one in found.values():
        show(one, every=every)
    if not any(one.rows for one in found.values()):
        message = f"Nothing could be measured, so nothing was written to {out}."
        raise CohortError(message)
    write_measured_hospitals(found, plan, out)
    say(f"Written to {out}: a folder for each hospital with its table, and {MEASURED_PAGE}.")
