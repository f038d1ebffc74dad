"""Which round's weights are kept, and when to stop: a rule fixed before the run."""

from __future__ import annotations

from common.config import RunConfig
from common.metrics import Statistics
from common.tasks import Task


def score(config: RunConfig, task: Task, merged: Statistics) -> float:
    """Return the validation score of a round, lower is better; nan when nothing was released."""
    if config.selection.by == "metric":
        value = task.summarise(merged, config.evaluation)[task.metric].value
        return -value
    patients = float(merged.patients)
    return float(merged.sums["loss"]) / patients if patients > 0 else float("nan")


def is_better(score_now: float, best: float | None) -> bool:
    """Return whether a round's score beats the best so far; nan never does."""
    return score_now == score_now and (best is None or score_now < best)  # noqa: PLR0124 - nan


def should_stop(config: RunConfig, round_number: int, best_round: int) -> bool:
    """Return whether patience is at its end."""
    patience = config.selection.patience
    return (
        config.selection.rule == "best"
        and patience is not None
        and best_round > 0
        and round_number - best_round >= patience
    )
