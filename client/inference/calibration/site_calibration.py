"""Calibration of a model at a site, and what follows from it for a new patient.

Fitted by `client.inference.fit_calibration` on patients whom the model was not trained on, by
patient, and kept under the hash of the model's weights, so that it is never applied to another
model.

Values: slope and offsets of the network's output (temperature scaling, Guo et al. 2017, with the
offset of Platt 1999 because a site's patients may be more or less often ill than the run's); for
survival an offset alone, which scales the hazard. The interval is what other calibration
patients would have led to (bootstrap, 2.5 to 97.5 %); it is not the model's own uncertainty.

Numbers between public ends: the network's own value, with an interval by split conformal
prediction instead: `coverage` of new patients like the calibration's have their number in it. One
misfit, the largest error that stays inside, is kept as the threshold of the one question.

Sets: split conformal (Vovk et al. 2005) by class: of new patients like the calibration's who have
a class, at least `coverage` get a set that holds it, whatever the model is worth. The set of a
class with too few calibration patients for that always holds it. Not promised: anything for
patients who are unlike them (see `client.inference.calibration.out_of_distribution`), or for
survival and outlines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.inference.calibration.label_questions import Float
from client.inference.calibration.prediction_sets import sets_of
from common.config.run_config import RunConfig
from common.config.tasks.forms import BoundedNumber
from common.data.weights import fingerprint, load_weights, save_weights
from common.platform.durable_files import replace_durably
from common.platform.errors import StateDamaged
from common.tasks import task_of

_SCHEMA = 1
#: Ends of the interval, in per cent.
_ENDS = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class SiteCalibration:
    """A model's calibration at this site; stays here."""

    weights: str  # SHA-256 of the model's weights
    parts: tuple[str, ...]  # of the run's split: whose patients were used
    patients: int
    coverage: float  # that a prediction set promises, such as 0.9
    flagged: float  # share of usual studies that may be called unlike, such as 0.05
    line: Float  # (1 + offsets,): slope, then offsets of the outputs; (0,) for outlines
    draws: Float  # (draws, 1 + offsets): the line of other calibration patients
    thresholds: tuple[tuple[float, ...], ...]  # by question and class; inf: always in the set
    counts: tuple[tuple[int, ...], ...]  # calibration patients by question and class
    distances: Float  # (patients,) how unlike the training patients each was
    reference: Tensor  # (training images, features) that distances are taken to
    members: frozenset[str]  # SHA-256 of every PatientID in it


@dataclass(frozen=True, kw_only=True)
class CalibratedPrediction:
    """A calibrated prediction of one patient or image."""

    value: Float  # (labels,) or (times,)
    low: Float  # the same
    high: Float  # the same
    sets: tuple[tuple[str, ...], ...]  # one a question


def judge(calibration: SiteCalibration, output: Tensor, config: RunConfig) -> CalibratedPrediction:
    """Return what the site's calibration makes of one output, (labels,)."""
    task, form = task_of(config.task), config.task.predicts
    if isinstance(form, BoundedNumber):
        value = task.predict(output.double()[None]).numpy()[0]
        ((away,),) = calibration.thresholds
        low, high = (np.clip(value + side * away, form.low, form.high) for side in (-1, 1))
        return CalibratedPrediction(value=value, low=low, high=high, sets=())
    lines = torch.from_numpy(np.vstack([calibration.line, calibration.draws]))
    moved = along(output.double()[None], lines)
    found = task.predict(moved).numpy()
    low, high = np.percentile(found[1:], _ENDS, axis=0)
    raw = task.predict(output.double()[None]).numpy()
    return CalibratedPrediction(
        value=found[0],
        low=np.minimum(low, found[0]),
        high=np.maximum(high, found[0]),
        sets=sets_of(calibration.thresholds, raw, config)[0],
    )


def along(output: Tensor, line: Tensor) -> Tensor:
    """Return slope x output + offsets; line is (..., 1 + offsets)."""
    return output * line[..., :1] + line[..., 1:]


def hashed(patients: Iterable[str]) -> frozenset[str]:
    """Return what a calibration notes of its patients: enough to see who was withdrawn."""
    return frozenset(hashlib.sha256(patient.encode()).hexdigest() for patient in patients)


def keep_calibration(folder: Path, calibration: SiteCalibration) -> Path:
    """Write the calibration under its model's hash; the JSON comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, calibration.weights)
    reference = {"reference": calibration.reference}
    save_weights(path.with_suffix(".safetensors"), reference)
    content = {
        "schema": _SCHEMA,
        "weights": calibration.weights,
        "parts": list(calibration.parts),
        "patients": calibration.patients,
        "coverage": calibration.coverage,
        "flagged": calibration.flagged,
        "line": calibration.line.tolist(),
        "draws": calibration.draws.tolist(),
        "thresholds": [
            [None if np.isinf(v) else v for v in of_classes]
            for of_classes in calibration.thresholds
        ],
        "counts": [list(c) for c in calibration.counts],
        "distances": calibration.distances.tolist(),
        "reference": fingerprint(reference),
        "members": sorted(calibration.members),
    }
    replace_durably(path, json.dumps(content, indent=1).encode(), mode=0o600)
    path.with_suffix(".safetensors").chmod(0o600)
    return path


def load_calibration(
    folder: Path, weights: str, withdrawn: frozenset[str]
) -> SiteCalibration | None:
    """Return the model's calibration; None where it has none, or holds a withdrawn patient.

    What holds a withdrawn patient is deleted. StateDamaged when it cannot be read as written.
    """
    path = _path(folder, weights)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        found = _from_json(content, load_weights(path.with_suffix(".safetensors")))
    except (OSError, ValueError, KeyError, TypeError, StateDamaged) as error:
        message = (
            f"The calibration {path} cannot be read back ({error}). Delete it, and type: "
            "wardround-site calibrate --bundle FOLDER"
        )
        raise StateDamaged(message) from error
    if found.members & hashed(withdrawn):
        path.unlink()
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        return None
    return found


def _path(folder: Path, weights: str) -> Path:
    return folder / f"{weights}.json"


def _from_json(content: dict[str, object], tensors: dict[str, Tensor]) -> SiteCalibration:
    if content["schema"] != _SCHEMA or content["reference"] != fingerprint(tensors):
        message = "its two files do not belong together, or another release wrote them"
        raise ValueError(message)
    thresholds, counts = content["thresholds"], content["counts"]
    parts, members = content["parts"], content["members"]
    patients, draws = content["patients"], np.array(content["draws"], np.float64)
    lists = all(isinstance(part, list) for part in (thresholds, counts, parts, members))
    if not lists or not isinstance(patients, int):
        message = "a value is of another type"
        raise TypeError(message)
    return SiteCalibration(
        weights=str(content["weights"]),
        parts=tuple(map(str, _listed(parts))),
        patients=patients,
        coverage=_number(content["coverage"]),
        flagged=_number(content["flagged"]),
        line=np.array(content["line"], np.float64),
        draws=draws,
        thresholds=tuple(
            tuple(float("inf") if v is None else _number(v) for v in _listed(of_classes))
            for of_classes in _listed(thresholds)
        ),
        counts=tuple(tuple(int(_number(n)) for n in _listed(c)) for c in _listed(counts)),
        distances=np.array(content["distances"], np.float64),
        reference=tensors["reference"],
        members=frozenset(map(str, _listed(members))),
    )


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        message = f"expected a list, found {type(value).__name__}"
        raise TypeError(message)
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        message = f"expected a number, found {type(value).__name__}"
        raise TypeError(message)
    return float(value)
