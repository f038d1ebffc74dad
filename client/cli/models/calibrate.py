"""`calibrate`: what a model's probabilities mean on this site's patients."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from client.inference.calibration.site_calibration import SiteCalibration, keep_calibration
from client.inference.inputs import check_bundle
from client.site.home import Home
from client.site.site_config import allowed_extensions
from client.site.terminal import as_text, say
from common.config.run_config import RunConfig
from common.config.tasks.forms import BoundedNumber, IncidenceCurves, SurvivalCurve


def calibrate(home: Home, bundle: Path, *, coverage: float, unlike: float, as_json: bool) -> None:
    """Fit and keep the calibration, and say what it holds."""
    from client.inference.fit_calibration import CalibrationOptions
    from client.inference.fit_calibration import calibrate as fitted
    from client.inference.trained_model import open_model

    wishes = CalibrationOptions(coverage=coverage, flagged=unlike)
    check_bundle(bundle)
    model = open_model(bundle, allowed_extensions(home.site_yaml))
    if not as_json:
        say(f"Calibrating {model.config.name} on this site's patients.")
    found = fitted(home, model, wishes)
    path = keep_calibration(home.calibration, found)
    if as_json:
        say(
            json.dumps(
                {
                    "model": model.name.name,
                    "weights": found.weights,
                    "patients": found.patients,
                    "parts": found.parts,
                    "coverage": found.coverage,
                    "counts": found.counts,
                    "line": found.line.tolist(),
                    "kept": str(path),
                },
                indent=1,
            )
        )
        return
    for line in lines_of(found, model.config):
        say(as_text(line))
    say(f"Kept in {path}. Nothing of it leaves this site.")


def lines_of(found: SiteCalibration, config: RunConfig) -> Iterator[str]:
    """Yield what the admin should know of a calibration."""
    yield (
        f"From {found.patients} patients of the run's {' and '.join(found.parts)} part, none of "
        "whom it was trained on."
    )
    yield from _line(found, config)
    form = config.task.predicts
    if isinstance(form, BoundedNumber):
        ((away,),) = found.thresholds
        yield (
            f"Interval: the number -+ {min(away, form.high - form.low):.3g} {form.unit}, which "
            f"holds the truth of {found.coverage:.0%} of patients like these."
        )
        yield _flagged(found)
        return
    fewest = math.ceil(found.coverage / (1 - found.coverage) - 1e-9)
    for classes, counts, limits in zip(
        config.task.alternatives, found.counts, found.thresholds, strict=True
    ):
        for name, count, limit in zip(classes, counts, limits, strict=True):
            if math.isinf(limit):
                yield (
                    f"{name}: {count} patients, expected at least {fewest}, so it is never ruled "
                    "out: studies get a single answer only where it is the answer."
                )
            else:
                yield f"{name}: {count} patients; {found.coverage:.0%} of such keep it in their set"
    if not found.counts:
        yield "No sets: there are none for survival over time and for outlines."
    yield _flagged(found)


def _flagged(found: SiteCalibration) -> str:
    return f"About {found.flagged:.0%} of usual studies will be called unlike the training images."


def _line(found: SiteCalibration, config: RunConfig) -> Iterator[str]:
    """Yield what is done to the network's output."""
    form = config.task.predicts
    if isinstance(form, SurvivalCurve):
        times = math.exp(float(found.line[1]))
        yield f"The odds of the event in each interval are {times:.2f} times what the network says."
    elif isinstance(form, IncidenceCurves):
        each = found.line[1 :: len(form.times)]
        told = ", ".join(
            f"of {cause} {math.exp(float(offset)):.2f}"
            for cause, offset in zip(form.causes, each, strict=True)
        )
        yield f"The odds in each interval, as times of what the network says: {told}."
    elif len(found.line) > 1:
        slope = float(found.line[0])
        offsets = ", ".join(f"{value:+.2f}" for value in found.line[1:])
        yield (
            f"The network's output times {slope:.2f} (temperature {1 / slope:.2f}), then {offsets}."
        )
