"""Choice of the checkpoint: the round whose weights are kept."""

from __future__ import annotations

import math

from common.config.run_config import RunConfig
from common.metrics.statistics import Statistics
from common.platform.errors import ConfigurationError
from common.tasks import Task


def check_selection(config: RunConfig) -> None:
    """Raise ConfigurationError for a rule that no round could ever meet."""
    rules = config.selection
    if rules.rule == "best" and rules.by == "loss" and config.evaluation.count_noise > 0:
        message = (
            f"selection.by=loss does not go with evaluation.count_noise="
            f"{config.evaluation.count_noise}: no sum of losses leaves a site then. "
            "Take selection.by: metric, or selection.rule: last."
        )
        raise ConfigurationError(message)


def score(config: RunConfig, task: Task, merged: Statistics) -> float:
    """Return the validation score of a round, lower is better; nan when nothing was released."""
    if config.selection.by == "metric":
        found = task.summarise(merged, config.evaluation).get(task.metric)
        return float("nan") if found is None else -found.value
    patients = float(merged.patients)
    return float(merged.sums["loss"]) / patients if patients > 0 else float("nan")


def is_better(score_now: float, best: float | None) -> bool:
    """Return whether a round's score beats the best so far; nan and infinity never do."""
    return math.isfinite(score_now) and (best is None or score_now < best)
