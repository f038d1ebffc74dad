"""Early stopping of a run, after `selection.patience` rounds without a better score."""

from __future__ import annotations

from common.config.run_config import RunConfig


def should_stop(config: RunConfig, round_number: int, best_round: int) -> bool:
    """Return whether patience is at its end."""
    patience = config.selection.patience
    return (
        config.selection.rule == "best"
        and patience is not None
        and best_round > 0
        and round_number - best_round >= patience
    )
