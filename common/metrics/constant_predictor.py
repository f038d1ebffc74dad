"""Constant predictor, a baseline that looks at no patient.

    diagnosis, prognosis    the same score for all: AUROC and C-index 0.5; of grades kappa 0
    regression              the mean of those who are measured, for everybody: R2 of 0
    segmentation            the empty outline, which has Dice 0; where the masks are (in a
                            simulation) the full one too, and the better counts

What ranks, overlaps or explains is compared here. How well predictions fit (Brier score, mean
absolute error) is compared in a simulation, where the training patients are, with their
prevalence, Kaplan-Meier curve or mean (simulations/report/constant.py).

Known without torch, so that looking at a run starts at once.

Public: Constant, constant_of, beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from common.metrics.names import metric_words

#: An outline that overlaps less than this is no better than an empty one for any use.
_USELESS_DICE = 0.005
#: Headline metrics, and what a constant predictor has.
_VALUES: Mapping[str, float] = {
    "auroc": 0.5,
    "macro_auroc": 0.5,
    "concordance": 0.5,
    "cause_auc": 0.5,
    "dice": 0.0,
    "r2": 0.0,
    "quadratic_kappa": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Constant:
    """What a model is held against."""

    metric: str
    value: float

    def words(self, value: float, low: float, reason: str = "") -> str:
        """Say whether a model with this value, and this end of its interval, is better.

        reason is why there is no value, where there is none.
        """
        name = metric_words(self.metric)
        beside = f"A constant predictor has {name} {self.value:.3f}"
        if math.isnan(value):
            return f"{beside}; the model's is not known{f': {reason}' if reason else ''}."
        if value <= self.value or (self.metric == "dice" and value < _USELESS_DICE):
            return f"NO BETTER THAN A CONSTANT: {name} {value:.3f}. {beside}."
        if low <= self.value:
            return (
                f"Not shown to be better than a constant: {name} {value:.3f}, of which the "
                f"interval begins at {low:.3f}. {beside}."
            )
        return f"{beside}."


def constant_of(metric: str) -> Constant | None:
    """Return what a constant has in a headline metric, None where that is not known."""
    value = _VALUES.get(metric)
    return None if value is None else Constant(metric=metric, value=value)


def beside(metrics: Mapping[str, object]) -> str:
    """Return the sentence for metrics as JSON has them; empty where none is a headline."""
    for name, found in metrics.items():
        constant = constant_of(name)
        if constant is None or not isinstance(found, Mapping):
            continue
        value, low = (_number(found.get(key)) for key in ("value", "low"))
        reason = str(found.get("reason") or "")
        return constant.words(value, value if math.isnan(low) else low, reason)
    return ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
