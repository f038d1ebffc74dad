"""Rounds at which a run is measured, by its configuration alone.

Guarantee: what a configuration has measured is a list with an end, so what was approved bounds
how often a site can be asked.

    selection.rule best    validation in every `selection.every`-th round, and in the last
    selection.rule last    no validation: nothing is chosen; so in every private run in force
    test patients          once, when training is over: after the last round, or, with patience,
                           after a validated round
"""

from __future__ import annotations

from typing import Literal

from common.config.run_config import RunConfig

Split = Literal["validation", "test"]


def is_validated(config: RunConfig, round_number: int) -> bool:
    """Return whether this round's weights are measured on validation patients."""
    if config.selection.rule == "last" or not 1 <= round_number <= config.training.rounds:
        return False
    return round_number % config.selection.every == 0 or round_number == config.training.rounds


def is_measured(config: RunConfig, round_number: int, split: Split) -> bool:
    """Return whether a site may be asked to measure this round's weights on this split."""
    if split == "validation":
        return is_validated(config, round_number)
    if round_number == config.training.rounds:
        return True
    return config.selection.patience is not None and is_validated(config, round_number)


def evaluations(config: RunConfig, split: Split) -> int:
    """Return how often a site can be asked to measure a split in the whole run."""
    return sum(is_measured(config, n, split) for n in range(1, config.training.rounds + 1))
