"""Evidence on a model beside its metrics: patients, subgroups, calibration.

Everything in it was released already: made of the counts that sites give for evaluation, in
cells no smaller than `evaluation.smallest_cell`. Nothing more is asked of anybody for a card.

Public: Evidence, SiteData, Subgroup, CalibrationEvidence, calibration_of,
confusion_of, ConfusionMatrix, survival_of, evidence_json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from common.bundle.origin import Json
from common.config.privacy import Known
from common.config.run_config import RunConfig
from common.config.tasks.forms import BoundedNumber
from common.config.tasks.task_config import TaskConfig
from common.metrics.agreement import Range, of_sums
from common.metrics.decisions.confusion import matrices_in
from common.metrics.decisions.threshold import by_truth, noised_counts, ranges_in, split
from common.metrics.intervals import Estimate, Float
from common.metrics.noised import projected
from common.metrics.statistics import Statistics
from common.tasks import task_of
from common.tasks.task import Observing


@dataclass(frozen=True, kw_only=True)
class SiteData:
    """A site's patients; None: not told, or fewer than the smallest cell."""

    training_patients: int | None
    test_patients: int | None
    training_patients_are: Known = "exact"
    test_patients_are: Known = "exact"


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Test patients who have something in common, of all sites together."""

    column: str  # of the table of labels
    value: str  # what they have there; a band such as 40 to 59 for numbers
    patients: int | None  # None: fewer than the smallest cell
    metrics: Mapping[str, Estimate]  # as evaluation between hospitals gives them


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Test patients whose predictions lie in one public bin."""

    patients: float
    predicted: float  # mean probability or number
    seen: float  # part of them with the outcome, or their mean number


@dataclass(frozen=True, kw_only=True)
class CalibrationEvidence:
    """Whether predictions of one label mean what they say, on test patients of all sites."""

    label: str
    bins: tuple[CalibrationBin, ...]
    #: Of log-odds seen on log-odds predicted, over the bins; nan where it cannot be had.
    intercept: float  # with the slope held at 1: below 0 where risks are told too high
    slope: float  # below 1 where they are told too far apart
    #: UCUM's, of a number: intercept and slope are then of the line from predicted to true ones.
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class ConfusionMatrix:
    """Test patients of all sites by what is true (rows) and what was predicted (columns).

    Cells of few patients are told together: a cell then holds between `least` and `most`.
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]
    least: tuple[tuple[float, ...], ...]
    most: tuple[tuple[float, ...], ...]
    noise: float = 0.0  # standard deviation, in patients, of the noise on each count


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a card says beyond metrics by site."""

    data: Mapping[str, SiteData] = field(default_factory=dict)
    subgroups: tuple[Subgroup, ...] = ()
    #: Why there are no subgroups; empty where there are.
    no_subgroups: str = "The sites told no metrics by subgroup: not recorded."
    calibration: tuple[CalibrationEvidence, ...] = ()
    #: Why there is none; empty where there is.
    no_calibration: str = "Nothing was measured: not recorded."
    confusion: tuple[ConfusionMatrix, ...] = ()
    #: Survival as it was seen (Kaplan-Meier), by time in the run's unit.
    survival: Mapping[float, Estimate] = field(default_factory=dict)


def evidence_json(evidence: Evidence) -> dict[str, Json]:
    """Return plain values, None for nan."""
    return {
        "data": {
            name: {"training_patients": site.training_patients, "test_patients": site.test_patients}
            for name, site in evidence.data.items()
        },
        # Agreed, noised or exact.
        "data_are": {
            name: {
                "training_patients": site.training_patients_are,
                "test_patients": site.test_patients_are,
            }
            for name, site in evidence.data.items()
        },
        "subgroups": [
            {
                "column": group.column,
                "value": group.value,
                "patients": group.patients,
                "metrics": {name: value.to_json() for name, value in group.metrics.items()},
            }
            for group in evidence.subgroups
        ],
        "no_subgroups": "" if evidence.subgroups else evidence.no_subgroups,
        "calibration": [calibration_json(one) for one in evidence.calibration],
        "no_calibration": "" if evidence.calibration else evidence.no_calibration,
        **confusion_json(evidence.confusion),
        **survival_json(evidence.survival),
    }


def confusion_json(matrices: Sequence[ConfusionMatrix]) -> dict[str, Json]:
    """Return plain values; nothing where there is no matrix."""
    told: list[Json] = [asdict(one) for one in matrices]
    return {"confusion": told} if told else {}


def survival_json(survival: Mapping[float, Estimate]) -> dict[str, Json]:
    """Return plain values; nothing where no survival was seen."""
    told: list[Json] = [{"time": time, **found.to_json()} for time, found in survival.items()]
    return {"observed_survival": told} if told else {}


def survival_from_json(content: Sequence[Mapping[str, object]]) -> dict[float, Estimate]:
    """Read what survival_json wrote; KeyError, TypeError or ValueError where it does not fit."""
    return {
        float(str(one["time"])): Estimate(
            value=_number(one["value"]),
            low=_number(one["low"]),
            high=_number(one["high"]),
            patients=int(str(one["patients"])),
            reason=str(one.get("reason", "")),
        )
        for one in content
    }


def survival_of(statistics: Statistics, config: RunConfig) -> dict[float, Estimate]:
    """Return survival as it was seen at the run's times; empty for other tasks."""
    task = task_of(config.task)
    return task.observed(statistics, config.evaluation) if isinstance(task, Observing) else {}


def confusion_from_json(content: Sequence[Mapping[str, object]]) -> tuple[ConfusionMatrix, ...]:
    """Read what confusion_json wrote; KeyError, TypeError or ValueError where it does not fit."""
    return tuple(
        ConfusionMatrix(
            classes=tuple(map(str, _listed(one["classes"]))),
            **{name: _rows(one[name]) for name in ("counts", "least", "most")},
            noise=float(str(one["noise"])),
        )
        for one in content
    )


def _listed(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        message = "a confusion matrix needs lists"
        raise TypeError(message)
    return value


def _rows(value: object) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(str(n)) for n in _listed(row)) for row in _listed(value))


def confusion_of(statistics: Statistics, config: RunConfig) -> tuple[ConfusionMatrix, ...]:
    """Return the matrix of classes or grades, or one of each label at the run's threshold.

    Empty where the run names no threshold and has no grades.
    """
    noise = float(np.sqrt(statistics.noise))
    asked = config.task.alternatives
    if "middle" in statistics.sums:
        held = matrices_in(statistics)
        return (_matrix(asked[0], (held.middle, held.least, held.most), 0.0),)
    if "matrix" in statistics.cells:
        cells, shape = statistics.cells["matrix"][0], (len(asked[0]), len(asked[0]))
        return (_matrix(asked[0], (projected(cells).reshape(shape),) * 3, noise),)
    threshold = config.evaluation.threshold
    if not isinstance(threshold, float):
        return ()
    return tuple(
        _matrix(names, _at(statistics, label, threshold), noise)
        for label, names in enumerate(asked)
    )


def _at(statistics: Statistics, label: int, threshold: float) -> tuple[Float, Float, Float]:
    if "histogram" in statistics.cells:
        return (by_truth(noised_counts(statistics.cells["histogram"][label], threshold)),) * 3
    likely, worst, best = split(*ranges_in(statistics, label), threshold)
    least, most = np.minimum(worst, best), np.maximum(worst, best)
    return by_truth(likely), by_truth(least), by_truth(most)


def _matrix(
    classes: tuple[str, ...], parts: tuple[Float, Float, Float], noise: float
) -> ConfusionMatrix:
    """Return the matrix of (true, predicted) counts: likely, least and most."""
    counts, least, most = (
        tuple(tuple(round(float(n), 3) for n in row) for row in part) for part in parts
    )
    return ConfusionMatrix(classes=classes, counts=counts, least=least, most=most, noise=noise)


def calibration_json(one: CalibrationEvidence) -> dict[str, Json]:
    """Return plain values, None for nan."""
    return {
        "label": one.label,
        "bins": [asdict(part) for part in one.bins],
        "intercept": None if np.isnan(one.intercept) else one.intercept,
        "slope": None if np.isnan(one.slope) else one.slope,
        **({} if one.unit is None else {"unit": one.unit}),
    }


def calibration_from_json(
    content: Sequence[Mapping[str, object]],
) -> tuple[CalibrationEvidence, ...]:
    """Read what calibration_json wrote; KeyError, TypeError or ValueError where it does not fit."""
    found = []
    for one in content:
        bins = one["bins"]
        if not isinstance(bins, list):
            message = "calibration needs bins"
            raise TypeError(message)
        found.append(
            CalibrationEvidence(
                label=str(one["label"]),
                bins=tuple(
                    CalibrationBin(**{n: float(v) for n, v in part.items()}) for part in bins
                ),
                intercept=_number(one["intercept"]),
                slope=_number(one["slope"]),
                unit=None if one.get("unit") is None else str(one["unit"]),
            )
        )
    return tuple(found)


def _number(value: object) -> float:
    return float("nan") if value is None else float(str(value))


def calibration_of(statistics: Statistics, task: TaskConfig) -> tuple[CalibrationEvidence, ...]:
    """Return each label's calibration from merged statistics; empty where they hold none.

    Sites give, for each of five public bins of probability, the patients without and with the
    outcome and the sum of their probabilities; of numbers, for each of ten parts of the range, the
    patients and the sums of predicted and true ones. Statistics with noise have no such sums.
    """
    form, names = task.predicts, task.calibrated
    if isinstance(form, BoundedNumber):
        return _of_numbers(statistics, names[0], form)
    if "reliability" not in statistics.cells or "predicted" not in statistics.sums:
        return ()
    found = []
    for label, cells, predicted in zip(
        names, statistics.cells["reliability"], statistics.sums["predicted"], strict=True
    ):
        counts = cells.sum(axis=0)
        held = counts > 0
        if not held.any():
            continue
        mean, seen = predicted[held] / counts[held], cells[1][held] / counts[held]
        intercept, slope = _recalibration(mean, cells[1][held], counts[held])
        found.append(
            CalibrationEvidence(
                label=label,
                intercept=intercept,
                slope=slope,
                bins=tuple(
                    CalibrationBin(patients=float(n), predicted=float(p), seen=float(s))
                    for n, p, s in zip(counts[held], mean, seen, strict=True)
                ),
            )
        )
    return tuple(found)


def _of_numbers(
    statistics: Statistics, name: str, form: BoundedNumber
) -> tuple[CalibrationEvidence, ...]:
    if "fit" not in statistics.sums or not statistics.cells["fit"].any():
        return ()
    ends, counts = Range(low=form.low, high=form.high), statistics.cells["fit"]
    line, held = of_sums(statistics.sums["agreement"], ends), counts > 0
    predicted, true = ends.middle + ends.width * statistics.sums["fit"][:, held] / counts[held]
    bins = zip(counts[held], predicted, true, strict=True)
    found = CalibrationEvidence(
        label=name,
        intercept=line["calibration_intercept"].value,
        slope=line["calibration_slope"].value,
        bins=tuple(
            CalibrationBin(patients=float(n), predicted=float(p), seen=float(s)) for n, p, s in bins
        ),
        unit=form.unit,
    )
    return (found,)


def _recalibration(mean: Float, cases: Float, counts: Float) -> tuple[float, float]:
    """Return Cox's (1958) intercept, at slope 1, and slope of log-odds, over the bins."""
    nan = float("nan")
    if not 0 < cases.sum() < counts.sum():
        return nan, nan
    odds = np.log(np.clip(mean, 1e-6, 1 - 1e-6) / np.clip(1 - mean, 1e-6, 1))
    alone = _fitted(np.ones((len(odds), 1)), odds, cases, counts)
    both = _fitted(np.stack([np.ones(len(odds)), odds], 1), 0 * odds, cases, counts)
    return (
        nan if alone is None else float(alone[0]),
        nan if both is None or len(odds) < 2 else float(both[1]),
    )


def _fitted(columns: Float, offset: Float, cases: Float, counts: Float) -> Float | None:
    """Return the binomial regression's coefficients; None where they run away."""
    found = np.zeros(columns.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-np.clip(columns @ found + offset, -30, 30)))
        weight = np.maximum(counts * share * (1 - share), 1e-9)
        try:
            step = np.linalg.solve(
                columns.T @ (columns * weight[:, None]), columns.T @ (cases - counts * share)
            )
        except np.linalg.LinAlgError:
            return None
        found = found + step
        if np.abs(found).max() > 20:
            return None
        if np.abs(step).max() < 1e-8:
            return np.asarray(found)
    return None
