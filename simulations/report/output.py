"""The folder of a comparison: configuration, results.json, predictions, report, pictures, bundle.

Public: begin_folder, write_found.
"""

from __future__ import annotations

from pathlib import Path

from common.config.run_config import RunConfig
from common.platform.durable_files import replace_durably
from simulations.comparison.compare import Comparison
from simulations.report.predictions import write_predictions
from simulations.report.results import write_results


def begin_folder(out: Path, config: RunConfig) -> None:
    """Write config.yaml, and remove what an earlier comparison found under another one."""
    replace_durably(out / "config.yaml", config.to_yaml().encode())
    for name in ("results.json", "predictions.csv", "report.html"):
        (out / name).unlink(missing_ok=True)
    for picture in (out / "pictures").glob("*.png"):
        picture.unlink()


def write_found(out: Path, found: Comparison) -> list[str]:
    """Write results.json, predictions.csv, report.html, pictures/ and, of a shared model, bundle/.

    What the report says of models that are no better than a constant, and of noise, is returned.
    """
    write_results(out / "results.json", found)
    write_predictions(out / "predictions.csv", found)
    # Imported here: pictures take a while to load, and training begins without them.
    from simulations.report.html_report import write_report

    return write_report(out, found)
