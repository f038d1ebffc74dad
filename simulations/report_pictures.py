"""Pictures of a comparison: curves by round and the spread over seeds.

Figures are drawn by the Agg backend as objects of their own, so nothing global is touched.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from server.rounds import RoundRecord
from simulations.arms import Arm
from simulations.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, which most colour-blind people can tell apart.
COLOURS: Mapping[Arm, str] = {
    "local": "#666666", "pooled": "#000000", "federated": "#0072b2",
    "personalised": "#009e73", "federated_dp": "#d55e00",
}  # fmt: skip


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


def shown(arm: Arm) -> str:
    """Return an arm's name as people read it."""
    return {
        "local": "each alone", "pooled": "pooled", "federated": "federated",
        "personalised": "personalised", "federated_dp": "federated with DP",
    }[arm]  # fmt: skip


# --- curves ------------------------------------------------------------------------------


def curves(found: Comparison) -> Picture | None:
    """Draw validation by round, first seed and fold, of the arms that were trained in rounds."""
    arms = [a for a in ("pooled", "federated", "federated_dp") if _measured(found, a)]
    if not arms:
        return None
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    for arm in arms:
        outcome = found.outcomes[arm, found.seeds[0]][0]
        _curve(left, arm, _points(outcome.rounds, "loss", found), outcome.chosen_round)
        _curve(right, arm, _points(outcome.rounds, "metric", found), outcome.chosen_round)
    tidy(left, "Validation score (lower is better)", "round", _score_name(found))
    tidy(right, f"Validation {found.metric} (higher is better)", "round", found.metric)
    left.legend(fontsize=8, frameon=False)
    caption = (
        "Validation patients of all hospitals, first seed. The ring marks the round whose weights "
        "are used. Arms may take different numbers of rounds."
    )
    return finished(figure, "curves", caption)


def _measured(found: Comparison, arm: Arm) -> bool:
    outcomes = found.outcomes.get((arm, found.seeds[0]))
    return outcomes is not None and any(r.score is not None for r in outcomes[0].rounds)


def _score_name(found: Comparison) -> str:
    return "mean loss" if found.config.selection.by == "loss" else f"-{found.metric}"


def _points(
    rounds: tuple[RoundRecord, ...], what: str, found: Comparison
) -> list[tuple[int, float]]:
    points = []
    for record in rounds:
        if record.score is None:
            continue
        estimate = record.metrics.get(found.metric)
        metric = math.nan if estimate is None else estimate.value
        points.append((record.round, record.score if what == "loss" else metric))
    return points


def _curve(axes: Axes, arm: Arm, points: list[tuple[int, float]], chosen: int) -> None:
    rounds, values = zip(*points, strict=True)
    colour = COLOURS[arm]
    axes.plot(rounds, values, color=colour, linewidth=1.6, label=shown(arm))
    for number, value in points:
        if number == chosen:
            axes.plot(number, value, "o", color=colour, markerfacecolor="white", markersize=6)


# --- spread ------------------------------------------------------------------------------


def spread(found: Comparison) -> Picture:
    """Draw each hospital's test metric by arm, a dot a seed and a line for their mean."""
    names = ["all hospitals", *(c.name for c in found.cohorts)]
    figure = new_figure(max(6.5, 1.3 * len(names)), 3.6)
    axes = figure.subplots()
    width = 0.7 / len(found.arms)
    for place, arm in enumerate(found.arms):
        shift = (place - (len(found.arms) - 1) / 2) * width
        for column in range(len(names)):
            values = np.array([_value(found, arm, seed, column) for seed in found.seeds])
            _dots(axes, column + shift, values, width, COLOURS[arm])
        axes.plot([], [], "o", color=COLOURS[arm], markersize=5, label=shown(arm))
    axes.set_xticks(range(len(names)), names)
    tidy(axes, f"Test {found.metric} by hospital", "", found.metric)
    axes.axvline(0.5, color="#999999", linewidth=0.8)
    figure.legend(
        loc="outside lower center", ncols=len(found.arms), fontsize=8, frameon=False
    )
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
