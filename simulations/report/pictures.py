"""Pictures of the report: curves by round, spread over seeds.

Figures are drawn by the Agg backend as objects of their own, so nothing global is touched.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.metrics.names import metric_words
from server.rounds.run_rounds import RoundRecord
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which most colour-blind people can tell apart.
COLOURS: Mapping[Arm, str] = {
    "local": "#666666",
    "pooled": "#000000",
    "federated": "#0072b2",
    "personalised": "#009e73",
    "federated_dp": "#d55e00",
    "leave_one_out": "#cc79a7",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of the report."""

    name: str  # of its file, without .png
    caption: str
    png: bytes


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches."""
    # Imported here: only a finished comparison draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel without axes for each of `count`, four in a line, in inches."""
    columns = min(4, count)
    lines = math.ceil(count / columns)
    figure = new_figure(2.5 * columns, height * lines)
    panels = list(figure.subplots(lines, columns, squeeze=False).flatten())
    for axes in panels:
        axes.set_axis_off()
    return figure, panels


def finished(figure: Figure, name: str, caption: str) -> Picture:
    """Return the figure as a PNG."""
    held = io.BytesIO()
    # Without the version of matplotlib in it, so that equal figures are equal files.
    figure.savefig(held, format="png", dpi=110, metadata={"Software": ""})
    return Picture(name=name, caption=caption, png=held.getvalue())


def tidy(axes: Axes, title: str, x: str, y: str) -> None:
    """Label the axes and take away what carries nothing."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def metric_name(found: Comparison) -> str:
    """Return the headline metric's name as people read it."""
    return metric_words(found.metric)


def shown(arm: Arm) -> str:
    """Return an arm's name as people read it."""
    return {
        "local": "each alone",
        "pooled": "pooled",
        "federated": "federated",
        "personalised": "personalised",
        "federated_dp": "federated with DP",
        "leave_one_out": "without each hospital",
    }[arm]


# --- curves ------------------------------------------------------------------------------

#: A value that withheld counts may have moved by more than this says nothing.
_LARGEST_BOUND = 0.2
_Points = list[tuple[int, float]]  # round and value


def curves(found: Comparison) -> Picture | None:
    """Draw validation by round, and epsilon by round, of the first seed and fold."""
    scores = {a: p for a in _IN_ROUNDS if (p := _scores(_records(found, a)))}
    values = {a: p for a in _IN_ROUNDS if (p := _values(_records(found, a), found.metric))}
    spent = any(r.epsilon for r in _records(found, "federated_dp"))
    panels = bool(scores) + bool(values) + spent
    if not panels:
        return None
    figure = new_figure(11 if panels == 3 else 9, 3.4)
    axes = list(figure.subplots(1, panels, squeeze=False).flatten())
    name = metric_name(found)
    if scores:
        _validation(axes[0], found, scores)
        score = "mean loss" if found.config.selection.by == "loss" else f"-{name}"
        tidy(axes[0], "Validation score (lower is better)", "round", score)
    if values:
        place = axes[bool(scores)]
        _validation(place, found, values)
        tidy(place, f"Validation {name} (higher is better)", "round", name)
    if spent:
        _epsilon(axes[-1], found)
    return finished(figure, "curves", _caption(found, list(scores)))


_IN_ROUNDS: tuple[Arm, ...] = ("pooled", "federated", "federated_dp")


def _records(found: Comparison, arm: Arm) -> tuple[RoundRecord, ...]:
    outcomes = found.outcomes.get((arm, found.seeds[0]))
    return () if outcomes is None else outcomes[0].rounds


def _caption(found: Comparison, validated: list[Arm]) -> str:
    rule = "First seed" + (", first fold." if found.config.cohort.split.folds else ".")
    missing = [shown(a) for a in _IN_ROUNDS if a in found.arms and a not in validated]
    why = (
        f" No validation by round: {', '.join(missing)}, because the last round is kept unseen "
        "(selection.rule: last) or too few patients could be released."
        if missing
        else ""
    )
    if not validated:
        return rule + why
    return (
        f"{rule} Validation patients of all hospitals, from what may leave each. The ring marks "
        "the round whose weights are used. Values are left out where too few patients were "
        f"released to know them.{why}"
    )


def _scores(records: tuple[RoundRecord, ...]) -> _Points:
    return [(r.round, r.score) for r in records if r.score is not None and math.isfinite(r.score)]


def _values(records: tuple[RoundRecord, ...], metric: str) -> _Points:
    return [
        (r.round, found.value)
        for r in records
        if (found := r.metrics.get(metric))
        and found.bound <= _LARGEST_BOUND
        and math.isfinite(found.value)
    ]


def _validation(axes: Axes, found: Comparison, curves_of: Mapping[Arm, _Points]) -> None:
    for arm, points in curves_of.items():
        _curve(axes, arm, points, found.outcomes[arm, found.seeds[0]][0].chosen_round)
    axes.legend(fontsize=8, frameon=False)


def _epsilon(axes: Axes, found: Comparison) -> None:
    records = _records(found, "federated_dp")
    for site in records[-1].epsilon:
        held = [(r.round, r.epsilon[site]) for r in records if site in r.epsilon]
        style = "-" if len(held) > 1 else "o"  # as in _curve
        axes.plot(*zip(*held, strict=True), style, linewidth=1.4, label=site)
    tidy(axes, "Epsilon spent, federated with DP", "round", "epsilon by patient")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)


def _curve(axes: Axes, arm: Arm, points: _Points, chosen: int) -> None:
    colour = COLOURS[arm]
    # A line needs two points; a single validated round is a dot.
    style = "-" if len(points) > 1 else "o"
    axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=1.6, label=shown(arm))
    for number, value in points:
        if number == chosen:
            axes.plot(number, value, "o", color=colour, markerfacecolor="white", markersize=6)


# --- spread ------------------------------------------------------------------------------


def spread(found: Comparison) -> Picture:
    """Draw each hospital's test metric by arm, a dot a seed and a line for their mean."""
    names = ["all hospitals", *(c.name for c in found.cohorts)]
    figure = new_figure(max(9.0, 1.3 * len(names)), 3.6)
    axes = figure.subplots()
    width = 0.7 / len(found.arms)
    for place, arm in enumerate(found.arms):
        shift = (place - (len(found.arms) - 1) / 2) * width
        for column in range(len(names)):
            values = np.array([_value(found, arm, seed, column) for seed in found.seeds])
            _dots(axes, column + shift, values, width, COLOURS[arm])
        axes.plot([], [], "o", color=COLOURS[arm], markersize=5, label=shown(arm))
    axes.set_xticks(range(len(names)), names)
    tidy(axes, f"Test {metric_name(found)} by hospital", "", metric_name(found))
    axes.axvline(0.5, color="#999999", linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=len(found.arms), fontsize=8, frameon=False)
    caption = "Each hospital's own test patients. A dot is a seed, a line the mean over seeds."
    return finished(figure, "spread", caption)


def _value(found: Comparison, arm: Arm, seed: int, column: int) -> float:
    if column == 0:
        return found.value(arm, seed)
    return found.site_value(arm, seed, found.cohorts[column - 1].name)


def _dots(axes: Axes, place: float, values: np.ndarray, width: float, colour: str) -> None:
    held = values[~np.isnan(values)]
    if not len(held):
        return
    axes.plot([place] * len(held), held, "o", color=colour, markersize=4, alpha=0.6)
    mean = float(held.mean())
    axes.plot([place - 0.4 * width, place + 0.4 * width], [mean, mean], color=colour, linewidth=2)
