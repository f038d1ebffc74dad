"""Calibration in the report: reliability, survival by risk, Dice by hospital, numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from common.config.parts.units import in_brackets
from common.config.tasks.forms import (
    BoundedNumber,
    IncidenceCurves,
    LabelMap,
    LabelProbabilities,
    SurvivalCurve,
)
from common.metrics.intervals import Z95, Float
from common.metrics.times.competing import aalen_johansen
from common.metrics.times.survival import kaplan_meier
from common.tasks import task_of
from common.tasks.prognosis import follow_up
from common.tasks.task import Outlining, Scores
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison
from simulations.report.pictures import COLOURS, Picture, finished, new_figure, shown, tidy
from simulations.report.rows import main_arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 8
#: Labels that get a panel; more would be too small to read.
_PANELS = 8
#: Fewer patients in a bin tell nothing.
_SMALLEST_BIN = 3
_LINE: Mapping[str, Any] = {"color": "#999999", "linewidth": 1, "linestyle": "--"}
_THIRDS = (
    ("lowest third of risk", "#0072b2"),
    ("middle third", "#777777"),
    ("highest third", "#d55e00"),
)


def calibration(found: Comparison) -> Picture | None:
    """Draw what fits the task; first seed, test patients of all hospitals."""
    match found.config.task.predicts:
        case LabelMap():
            return _dice(found)
        case SurvivalCurve() as form:
            return _survival(found, form)
        case IncidenceCurves() as form:
            return _incidence(found, form)
        case LabelProbabilities():
            return _reliability(found)
        case BoundedNumber() as form:
            return _numbers(found, form)


# --- probabilities -----------------------------------------------------------------------


def _reliability(found: Comparison) -> Picture | None:
    names = found.config.task.labels[:_PANELS]
    arms = _compared(found) if len(names) == 1 else (main_arm(found),)
    columns = min(len(names), 4)
    lines = math.ceil(len(names) / columns)
    figure = new_figure(max(4.2, 3.0 * columns), max(3.8, 3.1 * lines))
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for column, (axes, name) in enumerate(zip(panels, names, strict=False)):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
        for arm in arms:
            _reliability_curve(axes, arm, found.merged_scores(arm, found.seeds[0]), column)
        tidy(axes, name, "predicted probability", "seen frequency")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    drawn = [axes for axes in panels if axes.get_legend_handles_labels()[0]]
    if not drawn:  # too few test patients for any bin
        return None
    drawn[0].legend(fontsize=8, frameon=False, loc="upper left")
    caption = (
        "On the dashed line a prediction means what it says; first seed, test patients of all "
        f"hospitals. Bins of equal width with {_SMALLEST_BIN} or more; bars are 95 % Wilson "
        "intervals, larger dots hold more."
    )
    return finished(figure, "calibration", caption)


def _compared(found: Comparison) -> tuple[Arm, ...]:
    wanted: tuple[Arm, ...] = ("local", "federated", "federated_dp")
    return tuple(arm for arm in wanted if arm in found.arms) or (main_arm(found),)


def _reliability_curve(axes: Axes, arm: Arm, scores: Scores, column: int) -> None:
    predicted = scores.prediction[:, column].double().numpy()
    truth = scores.target[:, column].double().numpy()
    known = ~np.isnan(truth)
    points = reliability(predicted[known], truth[known])
    if not len(points):
        return
    mean, seen, low, high, count = points.T
    axes.errorbar(
        mean,
        seen,
        yerr=[seen - low, high - seen],
        color=COLOURS[arm],
        linewidth=1,
        elinewidth=0.7,
        capsize=2,
        label=shown(arm),
    )
    axes.scatter(mean, seen, s=8 + 60 * count / count.max(), color=COLOURS[arm], alpha=0.8)


def reliability(predicted: Float, truth: Float) -> Float:
    """Return (bins, 5): mean prediction, seen frequency, its Wilson interval, count."""
    place = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
    points = []
    for number in range(_BINS):
        inside = place == number
        count = int(inside.sum())
        if count >= _SMALLEST_BIN:
            seen = float(truth[inside].mean())
            low, high = wilson(seen, count)
            points.append((float(predicted[inside].mean()), seen, low, high, count))
    return np.array(points, dtype=np.float64).reshape(-1, 5)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = (
        z
        / (1 + z * z / count)
        * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    )
    # At shares of 0 and 1 the ends meet the share, rounding apart.
    return min(middle - half, share), max(middle + half, share)


# --- numbers -----------------------------------------------------------------------------


def _numbers(found: Comparison, form: BoundedNumber) -> Picture | None:
    """Draw each test patient's predicted number against the true one, and the error beside it."""
    arms, name = _compared(found), found.config.task.labels[0]
    each = [(arm, found.merged_scores(arm, found.seeds[0])) for arm in arms]
    if not len(each[0][1].loss):
        return None
    unit = in_brackets(form.unit)
    figure = new_figure(max(5.0, 4.2 * len(each)), 7.4)
    panels = figure.subplots(2, len(each), squeeze=False)
    for (arm, scores), upper, lower in zip(each, *panels, strict=True):
        predicted, truth = (
            part[:, 0].double().numpy() for part in (scores.prediction, scores.target)
        )
        upper.plot([form.low, form.high], [form.low, form.high], **_LINE)
        upper.plot(truth, predicted, "o", color=COLOURS[arm], markersize=4, alpha=0.6)
        upper.set_xlim(form.low, form.high)
        upper.set_ylim(form.low, form.high)
        tidy(upper, shown(arm), f"true {name}{unit}", f"predicted {name}{unit}")
        error, middle = predicted - truth, (predicted + truth) / 2
        lower.plot(middle, error, "o", color=COLOURS[arm], markersize=4, alpha=0.6)
        limit = Z95 * float(error.std(ddof=1)) if len(error) > 1 else 0.0
        for line in (-limit, 0.0, limit):
            lower.axhline(float(error.mean()) + line, **_LINE)
        tidy(lower, "", f"mean of both{unit}", f"predicted - true{unit}")
    caption = (
        "First seed, test patients of all hospitals, a dot each; none of it leaves a hospital in a "
        "federation. Above: on the dashed line a prediction is right. Below (Bland and Altman): "
        "mean error, and the limits between which 95 % of errors lie."
    )
    return finished(figure, "calibration", caption)


# --- survival ----------------------------------------------------------------------------


def _survival(found: Comparison, form: SurvivalCurve) -> Picture | None:
    scores = found.merged_scores(main_arm(found), found.seeds[0])
    if len(scores.loss) < len(_THIRDS):
        return None
    curve = scores.prediction.double().numpy()
    _, _, time, event = follow_up(scores.target.double().numpy())
    edges = np.r_[0.0, np.asarray(form.times)]
    third = _thirds(1 - curve.mean(axis=1))
    figure = new_figure(6.5, 3.9)
    axes = figure.subplots()
    fine = np.linspace(0, edges[-1], 400)
    for number, (name, colour) in enumerate(_THIRDS):
        inside = third == number
        seen = kaplan_meier(time[inside], event[inside], fine)
        # Beyond the last patient that was followed there is nothing to compare with.
        seen[fine > time[inside].max()] = np.nan
        axes.step(fine, seen, where="post", color=colour, linewidth=1.6, label=f"{name}: seen")
        mean = np.r_[1.0, curve[inside].mean(axis=0)]
        axes.plot(edges, mean, "o--", color=colour, markersize=3, linewidth=1, label="predicted")
    tidy(axes, f"Survival, {shown(main_arm(found))}", form.unit, "without event")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    caption = (
        "Test patients of all hospitals, first seed, in thirds of predicted risk: Kaplan-Meier "
        "curves (lines) beside the mean predicted curves (dots)."
    )
    return finished(figure, "calibration", caption)


def _incidence(found: Comparison, form: IncidenceCurves) -> Picture | None:
    """Draw incidence as it was seen (Aalen and Johansen) and the mean predicted one, by cause."""
    scores = found.merged_scores(main_arm(found), found.seeds[0])
    if len(scores.loss) < _SMALLEST_BIN:
        return None
    truth = follow_up(scores.target.double().numpy())
    shape = (len(scores.loss), len(form.causes), len(form.times))
    predicted = scores.prediction.double().numpy().reshape(shape).mean(axis=0)
    at, whole = np.linspace(0, form.times[-1], 100), np.ones((1, len(scores.loss)))
    figure = new_figure(max(4.2, 3.4 * len(form.causes)), 3.8)
    panels = figure.subplots(1, len(form.causes), squeeze=False).flatten()
    for number, (axes, name) in enumerate(zip(panels, form.causes, strict=True), 1):
        seen = [aalen_johansen(truth.time, truth.event, number, float(t), whole)[0] for t in at]
        axes.step(at, seen, where="post", color="#0072b2", label="seen")
        axes.plot(form.times, predicted[number - 1], "o", color="#d55e00", label="predicted")
        tidy(axes, name, form.unit, "incidence")
        axes.set_ylim(-0.02, 1.02)
    panels[0].legend(fontsize=8, frameon=False, loc="upper left")
    caption = (
        f"Test patients of all hospitals, first seed, {shown(main_arm(found))}: incidence of each "
        "cause by Aalen and Johansen (line) beside the mean predicted one (dots)."
    )
    return finished(figure, "calibration", caption)


def _thirds(risk: Float) -> np.ndarray:
    """Return 0, 1 or 2 by rank of risk."""
    rank = np.argsort(np.argsort(risk, kind="stable"), kind="stable")
    return rank * len(_THIRDS) // len(risk)


# --- outlines ----------------------------------------------------------------------------


def _dice(found: Comparison) -> Picture:
    arms = _compared(found)
    figure = new_figure(max(5.5, 1.6 * len(found.cohorts)), 3.8)
    axes = figure.subplots()
    width = 0.7 / len(arms)
    for place, arm in enumerate(arms):
        shift = (place - (len(arms) - 1) / 2) * width
        values = [_dice_values(found, arm, c.name) for c in found.cohorts]
        boxes = axes.boxplot(
            values,
            positions=[n + shift for n in range(len(values))],
            widths=0.8 * width,
            patch_artist=True,
            flierprops={"markersize": 3},
            medianprops={"color": "white"},
        )
        for box in boxes["boxes"]:
            box.set_facecolor(COLOURS[arm])
        axes.plot([], [], "s", color=COLOURS[arm], label=shown(arm))
    axes.set_xticks(range(len(found.cohorts)), [c.name for c in found.cohorts])
    axes.set_ylim(-0.02, 1.02)
    tidy(axes, "Dice by item", "", "Dice, all structures together")
    figure.legend(loc="outside lower center", ncols=len(arms), fontsize=8, frameon=False)
    caption = (
        "Each box holds a hospital's test images that have an outline, first seed: quartiles, "
        "median (white), whiskers to 1.5 interquartile ranges, dots beyond."
    )
    return finished(figure, "calibration", caption)


def _dice_values(found: Comparison, arm: Arm, site: str) -> Float:
    scores, task = found.site_scores(arm, found.seeds[0], site), task_of(found.config.task)
    assert isinstance(task, Outlining)  # noqa: S101 - whoever calls asked
    if not len(scores.loss):
        return np.zeros(0)
    dice = task.dice(scores)[:, -1]
    return np.asarray(dice[~np.isnan(dice)])
